"""Heads of denoising detectors."""

from typing import Dict, List, Optional, Union

from mmdet.models.dense_heads import ConditionalDETRHead, DABDETRHead, DeformableDETRHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from mmdet_stable.structures import Branches

from .set_loss_head import SetLossHead


class _DenoisingLoss(SetLossHead):
    def loss(
        self,
        hidden_states: Tensor,
        references: Union[Tensor, List[Tensor]],
        batch_data_samples: SampleList,
        enc_outputs_class: Optional[Tensor] = None,
        enc_outputs_coord: Optional[Tensor] = None,
        dn_meta: Optional[Dict] = None,
    ) -> Dict[str, Tensor]:
        """Losses of a training step.

        Args:
            hidden_states: (K, B, T + Q, D) of K decoder layers.
            references: as the head's ``forward`` takes them.
            batch_data_samples: with ``gt_instances``.
            enc_outputs_class, enc_outputs_coord: (B, N, C) and (B, N, 4) of all encoder tokens of a two-stage detector,
                which learn to tell objects, as class 0, from background.
            dn_meta: of ``DNQueryGenerator``; None without denoising.
        """
        instances = [sample.gt_instances for sample in batch_data_samples]
        metas = [sample.metainfo for sample in batch_data_samples]
        encoder = None
        if enc_outputs_class is not None:
            boxes = enc_outputs_coord[None]
            encoder = Branches(enc_outputs_class[None], boxes, ('enc_',), class_agnostic=True)
        return self.set_losses(*self(hidden_states, references), instances, metas, dn_meta, encoder)


@MODELS.register_module()
class DNDETRHead(_DenoisingLoss, DABDETRHead):
    """mmdet's ``DABDETRHead`` with the losses of denoising queries; see :class:`SetLossHead` for its arguments."""


@MODELS.register_module()
class DNConditionalDETRHead(_DenoisingLoss, ConditionalDETRHead):
    """mmdet's ``ConditionalDETRHead`` with the losses of denoising queries; see :class:`SetLossHead`."""


@MODELS.register_module()
class DNDeformableDETRHead(_DenoisingLoss, DeformableDETRHead):
    """mmdet's ``DeformableDETRHead`` with the losses of denoising queries; see :class:`SetLossHead`."""
