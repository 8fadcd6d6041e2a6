"""Heads of denoising detectors without encoder proposals."""

from typing import Dict, Optional

from mmdet.models.dense_heads import ConditionalDETRHead, DABDETRHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from .set_loss_head import SetLossHead


class _DenoisingLoss(SetLossHead):
    def loss(
        self,
        hidden_states: Tensor,
        references: Tensor,
        batch_data_samples: SampleList,
        dn_meta: Optional[Dict] = None,
    ) -> Dict[str, Tensor]:
        """Losses of the decoder's states (K, B, T + Q, D); ``references`` as the head's ``forward`` takes them."""
        instances = [sample.gt_instances for sample in batch_data_samples]
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.set_losses(*self(hidden_states, references), instances, metas, dn_meta)


@MODELS.register_module()
class DNDETRHead(_DenoisingLoss, DABDETRHead):
    """mmdet's ``DABDETRHead`` with the losses of denoising queries; see :class:`SetLossHead` for its arguments."""


@MODELS.register_module()
class DNConditionalDETRHead(_DenoisingLoss, ConditionalDETRHead):
    """mmdet's ``ConditionalDETRHead`` with the losses of denoising queries; see :class:`SetLossHead`."""
