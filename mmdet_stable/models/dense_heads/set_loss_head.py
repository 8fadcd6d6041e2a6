"""What turns a DETR head of mmdet into one of this package: one set loss for all branches, and optional NMS."""

from typing import Dict, Iterable, List, Optional

import torch
from mmcv.ops import batched_nms
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_stable.models.losses import PositionSupervisedLoss
from mmdet_stable.models.settings import check_head
from mmdet_stable.models.task_modules import StableHungarianAssigner
from mmdet_stable.structures import BatchTargets, Branches, DenoisingLayout, OneToMany

from .float32 import compute_in_float32
from .set_loss import LossGroup, SetLoss

BLANK_LOGIT = -20.0  # of a query that is in no loss: the class losses there vanish


class SetLossHead:
    """To be inherited from before one of mmdet's DETR heads; parameters, inputs and loss keys stay the same.

    Args:
        loss_cls: classification loss of the matching branches (decoder layers and encoder), e.g.
            ``PositionSupervisedLoss`` with ``loss_weight=6.0``; any sigmoid loss works.
        dn_cls_loss_weight: ``loss_weight`` of the same loss on denoising queries; None keeps that of ``loss_cls``.
        target_rescale: see :class:`SetLoss`; the paper prefers ``'max_iou'`` for 900 queries and ``'one'`` for 300.
        one_to_many: of :class:`OneToMany`; set by the detector.
        Others: as in mmdet. ``train_cfg.assigner`` must be a ``StableHungarianAssigner``; ``test_cfg.nms``, where
            given, is the config of a class-wise NMS on the ``max_per_img`` best boxes, e.g. ``dict(type='nms',
            iou_threshold=0.8)``.

    Raises:
        ValueError: for another assigner, a softmax loss, or a ``target_rescale`` that the loss cannot use, and as
            ``check_head``.
    """

    def __init__(
        self,
        *args,
        loss_cls: ConfigType,
        dn_cls_loss_weight: Optional[float] = None,
        target_rescale: Optional[str] = None,
        one_to_many: Optional[ConfigType] = None,
        **kwargs,
    ) -> None:
        check_head(type(self).__name__, dict(kwargs, loss_cls=loss_cls, dn_cls_loss_weight=dn_cls_loss_weight))
        super().__init__(*args, loss_cls=loss_cls, **kwargs)
        if self.train_cfg and not isinstance(self.assigner, StableHungarianAssigner):
            raise ValueError(
                f'{type(self).__name__} matches all layers at once: set model.train_cfg.assigner.type='
                f'"StableHungarianAssigner" (the same match_costs work), got {type(self.assigner).__name__}'
            )
        if not self.loss_cls.use_sigmoid:
            raise ValueError(
                f'{type(self).__name__} scores each class by a sigmoid: set use_sigmoid=True in bbox_head.loss_cls, '
                f'or another loss than {type(self.loss_cls).__name__}'
            )
        if target_rescale is not None and not isinstance(self.loss_cls, PositionSupervisedLoss):
            raise ValueError(
                f'target_rescale={target_rescale!r} rescales the targets of PositionSupervisedLoss, but loss_cls is '
                f'{type(self.loss_cls).__name__}; set target_rescale=None or use PositionSupervisedLoss'
            )
        self.one_to_many = OneToMany(**one_to_many) if one_to_many else None
        self.dn_loss_cls = self.loss_cls
        if dn_cls_loss_weight is not None:
            self.dn_loss_cls = MODELS.build(dict(loss_cls, loss_weight=dn_cls_loss_weight))
        self.set_loss = SetLoss(self.loss_bbox, self.loss_iou, target_rescale, self.sync_cls_avg_factor)

    def _init_layers(self) -> None:
        super()._init_layers()
        for branch in getattr(self, 'reg_branches', None) or [self.fc_reg]:
            compute_in_float32(branch)

    def set_losses(
        self,
        logits: Tensor,
        boxes_cxcywh: Tensor,
        gt_instances: InstanceList,
        img_metas: List[dict],
        dn_meta: Optional[Dict] = None,
        encoder: Optional[Branches] = None,
    ) -> Dict[str, Tensor]:
        """All losses of a training step.

        Args:
            logits: (K, B, T + Q, C) of K decoder layers: T denoising queries, then the matching queries, of which the
                last are one-to-many where these are configured.
            boxes_cxcywh: (K, B, T + Q, 4), normalised.
            gt_instances: ``bboxes`` (absolute xyxy) and ``labels`` of B images.
            img_metas: with ``img_shape``.
            dn_meta: of ``DNQueryGenerator`` or mmdet's ``CdnQueryGenerator``; None without denoising.
            encoder: one branch, of encoder proposals, where they are supervised.

        Returns:
            mmdet's keys: ``loss_cls``, ``d0.loss_cls``, ..., ``enc_loss_cls``, ``dn_loss_cls``, ``d0.dn_loss_cls``,
            ..., ``o2m_loss_cls``, ``d0.o2m_loss_cls``, ..., and the same for ``loss_bbox`` and ``loss_iou``.
        """
        targets = (dn_meta or {}).get('targets') or BatchTargets.from_instances(gt_instances, img_metas)
        num_dn = dn_meta['num_denoising_queries'] if dn_meta else 0
        layers = [f'd{i}.' for i in range(len(logits) - 1)] + ['']
        one_to_many = self.one_to_many if self.training else None  # of which there are none at test time
        num_o2m = one_to_many.num_queries if one_to_many else 0
        # One split, whose gradient is one concatenation; slices would each be padded with zeros and added.
        sizes = [num_dn, logits.shape[2] - num_dn - num_o2m, num_o2m]
        dn_logits, logits, o2m_logits = logits.split(sizes, dim=2)
        dn_boxes, boxes, o2m_boxes = boxes_cxcywh.split(sizes, dim=2)
        matching = [Branches(logits, boxes, tuple(layers))]
        if encoder is not None:
            matching.append(encoder)
        if one_to_many:
            _, num_copies, loss_weight = one_to_many
            prefixes = tuple(f'{layer}o2m_' for layer in layers)
            matching.append(Branches(o2m_logits, o2m_boxes, prefixes, num_copies=num_copies, loss_weight=loss_weight))
        all_matches = self.assigner.assign_batch(matching, targets)
        skipped = all_matches[0].skipped_images
        if skipped:
            matching = [blanked(branches, skipped) for branches in matching]
        groups = [LossGroup(branches, matches, self.loss_cls) for branches, matches in zip(matching, all_matches)]
        if dn_meta:
            layout = dn_meta.get('layout') or DenoisingLayout.of_mmdet(dn_meta, targets.num_gts)
            branches = Branches(dn_logits, dn_boxes, tuple(f'{layer}dn_' for layer in layers))
            if skipped:
                branches = blanked(branches, skipped)
                layout = layout.without(skipped)
            matches = layout.matches(len(layers), dn_logits.device)
            valid = layout.valid(dn_logits.device) if layout.ignore_padding and layout.is_padded else None
            groups.append(LossGroup(branches, matches, self.dn_loss_cls, valid))
        return self.set_loss(groups, targets)

    def _predict_by_feat_single(
        self, cls_score: Tensor, bbox_pred: Tensor, img_meta: dict, rescale: bool = True
    ) -> InstanceData:
        """Detections of one image, by score; where ``test_cfg.nms`` is set, after class-wise NMS."""
        results = super()._predict_by_feat_single(cls_score, bbox_pred, img_meta, rescale)
        nms_cfg = self.test_cfg.get('nms')
        if nms_cfg is None:
            return results
        # In float32: mmcv's NMS takes no half-precision scores, as mixed precision gives them.
        detections, keep = batched_nms(results.bboxes.float(), results.scores.float(), results.labels, nms_cfg)
        results = results[keep]
        results.bboxes, results.scores = detections[:, :4], detections[:, 4]  # soft NMS lowers scores
        return results


def blanked(branches: Branches, images: Iterable[int]) -> Branches:
    """The same, with constants, which get no gradient, in place of all predictions of some images."""
    blank = torch.zeros(branches.logits.shape[1], dtype=torch.bool, device=branches.logits.device)
    blank[list(images)] = True
    blank = blank[:, None, None]
    # Boxes of a tenth: boxes without area would be at a kink of the box losses.
    return branches._replace(
        logits=branches.logits.float().masked_fill(blank, BLANK_LOGIT),
        boxes_cxcywh=branches.boxes_cxcywh.masked_fill(blank, 0.1),
    )
