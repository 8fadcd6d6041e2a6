"""mmdet's heads with the set loss: each ``Stable...Head`` takes the place of the mmdet head that it is named after."""

from typing import Dict, List, Optional

from mmdet.models.dense_heads import ConditionalDETRHead, DABDETRHead, DeformableDETRHead, DETRHead, DINOHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor, nn

from mmdet_stable.structures import Branches

from .set_loss_head import SetLossHead


class _StableHead(SetLossHead):
    def loss(
        self,
        batch_data_samples: SampleList,
        enc_outputs_class: Optional[Tensor] = None,
        enc_outputs_coord: Optional[Tensor] = None,
        dn_meta: Optional[Dict] = None,
        **decoder_outputs,
    ) -> Dict[str, Tensor]:
        """Losses of a training step.

        Args:
            batch_data_samples: with ``gt_instances``.
            enc_outputs_class, enc_outputs_coord: (B, N, C) and (B, N, 4) of all encoder tokens of a two-stage detector,
                which learn to tell objects, as class 0, from background.
            dn_meta: of ``DNQueryGenerator``; None without denoising.
            decoder_outputs: what the head's ``forward`` takes, with ``hidden_states`` (K, B, T + Q, D) of K layers.
        """
        instances = [sample.gt_instances for sample in batch_data_samples]
        metas = [sample.metainfo for sample in batch_data_samples]
        encoder = None
        if enc_outputs_class is not None:
            boxes = enc_outputs_coord[None]
            encoder = Branches(enc_outputs_class[None], boxes, ('enc_',), class_agnostic=True)
        return self.set_losses(*self(**decoder_outputs), instances, metas, dn_meta, encoder)


@MODELS.register_module()
class StableDETRHead(_StableHead, DETRHead):
    """mmdet's ``DETRHead`` with the set loss; see :class:`SetLossHead` for its arguments. It scores by a sigmoid."""


@MODELS.register_module()
class StableConditionalDETRHead(_StableHead, ConditionalDETRHead):
    """mmdet's ``ConditionalDETRHead`` with the set loss; see :class:`SetLossHead` for its arguments."""


@MODELS.register_module()
class StableDABDETRHead(_StableHead, DABDETRHead):
    """mmdet's ``DABDETRHead`` with the set loss; see :class:`SetLossHead` for its arguments."""


class _PredictsByLastLayer:
    def predict(
        self,
        hidden_states: Tensor,
        references: List[Tensor],
        batch_data_samples: SampleList,
        rescale: bool = True,
    ) -> InstanceList:
        """Detections, as mmdet's; the branches of layers before the last, which are for training, are left out."""
        last = len(hidden_states) - 1
        reference = inverse_sigmoid(references[last])
        reference = nn.functional.pad(reference, (0, 4 - reference.shape[-1]))  # points have no size yet
        logits = self.cls_branches[last](hidden_states[last])
        boxes = (self.reg_branches[last](hidden_states[last]) + reference).sigmoid()
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_feat(logits[None], boxes[None], batch_img_metas=metas, rescale=rescale)


@MODELS.register_module()
class StableDeformableDETRHead(_PredictsByLastLayer, _StableHead, DeformableDETRHead):
    """mmdet's ``DeformableDETRHead`` with the set loss; see :class:`SetLossHead` for its arguments."""


@MODELS.register_module()
class StableDINOHead(_PredictsByLastLayer, SetLossHead, DINOHead):
    """mmdet's ``DINOHead`` with the set loss; see :class:`SetLossHead` for its arguments."""

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Optional[Tensor],
        enc_bbox_preds: Optional[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: List[dict],
        dn_meta: Optional[Dict],
        batch_gt_instances_ignore: None = None,
    ) -> Dict[str, Tensor]:
        """Called by mmdet with what :meth:`SetLossHead.set_losses` takes; encoder proposals may be None."""
        encoder = None
        if enc_cls_scores is not None:
            encoder = Branches(enc_cls_scores[None], enc_bbox_preds[None], ('enc_',))
        predictions = all_layers_cls_scores, all_layers_bbox_preds
        return self.set_losses(*predictions, batch_gt_instances, batch_img_metas, dn_meta, encoder)
