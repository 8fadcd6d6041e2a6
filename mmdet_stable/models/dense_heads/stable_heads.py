"""mmdet's heads with the set loss: each ``Stable...Head`` takes the place of the mmdet head that it is named after."""

from typing import Dict, List, Optional, Sequence, Tuple

import torch
from mmdet.models.dense_heads import ConditionalDETRHead, DABDETRHead, DeformableDETRHead, DETRHead, DINOHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor

from mmdet_stable.models.layers import refined_boxes
from mmdet_stable.structures import BatchTargets, QueryPlan

from .set_loss_head import SetLossHead


class SharedLayersHead(SetLossHead):
    """All decoder layers share one class layer and one box branch, as in DETR."""

    def forward(self, hidden_states: Tensor, references: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """From states (K, B, Q, D) and the references around them, (K, B, Q, 2 or 4) or the same for all layers."""
        boxes = refined_boxes(self.box_branch, hidden_states, references, self.sigmoid_eps)
        return self.fc_cls(hidden_states), boxes

    def box_branch(self, states: Tensor) -> Tensor:
        """(..., 4) offsets from states (..., D)."""
        return self.fc_reg(self.activate(self.reg_ffn(states)))


@MODELS.register_module()
class StableDETRHead(SharedLayersHead, DETRHead):
    """Head of DETR with the set loss; see :class:`SetLossHead` for its arguments. It scores by a sigmoid."""


@MODELS.register_module()
class StableConditionalDETRHead(SharedLayersHead, ConditionalDETRHead):
    """Head of Conditional DETR with the set loss; see :class:`SetLossHead` for its arguments."""


@MODELS.register_module()
class StableDABDETRHead(SharedLayersHead, DABDETRHead):
    """Head of DAB-DETR with the set loss; see :class:`SetLossHead` for its arguments."""

    default_sigmoid_eps = 1e-3

    def box_branch(self, states: Tensor) -> Tensor:
        return self.fc_reg(states)


class LayerwiseHead(SetLossHead):
    """Each decoder layer has a class layer and a box branch, which may be shared, as in Deformable-DETR."""

    def forward(self, hidden_states: Tensor, references: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
        """From states (K, B, Q, D) and at least K references (B, Q, 2 or 4), those that each layer starts from."""
        layers = [self.forward_layer(index, *inputs) for index, inputs in enumerate(zip(hidden_states, references))]
        logits, boxes = zip(*layers)
        return torch.stack(logits), torch.stack(boxes)

    def forward_layer(self, layer: int, states: Tensor, references: Tensor) -> Tuple[Tensor, Tensor]:
        """Logits (B, Q, C) and boxes (B, Q, 4) of one layer."""
        boxes = refined_boxes(self.reg_branches[layer], states, references, self.sigmoid_eps)
        return self.cls_branches[layer](states), boxes

    def predict(
        self,
        hidden_states: Tensor,
        references: Sequence[Tensor],
        batch_data_samples: SampleList,
        rescale: bool = True,
    ) -> InstanceList:
        """Detections of the last layer; the branches of layers before it are for training, and left out."""
        last = len(hidden_states) - 1
        logits, boxes = self.forward_layer(last, hidden_states[last], references[last])
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_feat(logits[None], boxes[None], batch_img_metas=metas, rescale=rescale)


@MODELS.register_module()
class StableDeformableDETRHead(LayerwiseHead, DeformableDETRHead):
    """Head of Deformable-DETR with the set loss; see :class:`SetLossHead` for its arguments."""


@MODELS.register_module()
class StableDINOHead(LayerwiseHead, DINOHead):
    """Head of DINO with the set loss; see :class:`SetLossHead` for its arguments."""

    class_agnostic_encoder = False

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Optional[Tensor],
        enc_bbox_preds: Optional[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: List[dict],
        dn_meta: Optional[Dict[str, int]] = None,
        batch_gt_instances_ignore: None = None,
    ) -> Dict[str, Tensor]:
        """Losses of given predictions, with the arguments of mmdet's ``DINOHead``; proposals may be None."""
        targets = BatchTargets.from_instances(batch_gt_instances, batch_img_metas)
        plan = QueryPlan.of_mmdet(targets, all_layers_cls_scores.shape[2], dn_meta)
        return self.plan_losses(plan, all_layers_cls_scores, all_layers_bbox_preds, enc_cls_scores, enc_bbox_preds)
