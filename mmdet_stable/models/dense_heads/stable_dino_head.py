"""Head of Stable-DINO: wires decoder, encoder and denoising branches into the set loss."""

from typing import Dict, List, Optional

from mmdet.models.dense_heads import DINOHead
from mmdet.registry import MODELS
from mmdet.utils import InstanceList
from torch import Tensor

from mmdet_stable.structures import Branches

from .set_loss_head import SetLossHead


@MODELS.register_module()
class StableDINOHead(SetLossHead, DINOHead):
    """mmdet's ``DINOHead`` with stable matching; see :class:`SetLossHead` for its arguments."""

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
