"""The terms that masks add to the set loss, and what masks change in the others."""

from typing import List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from mmdet_stable.models.losses import MaskPairs, PointSampler, mask_ious, mask_point_losses, pairs_by_image
from mmdet_stable.models.losses.mask_point_loss import Draw
from mmdet_stable.models.task_modules import Pairwise, position_quality
from mmdet_stable.structures import BatchTargets, Supervised

from .loss_terms import ClassTerm, MatchedPairs, PairTerm


class ImageMasks(NamedTuple):
    """The matched pairs of all groups that have masks, image by image.

    Attributes:
        images: B times the pairs of an image.
        inds: which of the M pairs of all groups they are, in the same order.
    """

    images: List[MaskPairs]
    inds: Tensor

    def spread(self, values: Tensor, num_pairs: int) -> Tensor:
        """A value of each of these pairs as (M,), 0 for pairs without masks."""
        return values.new_zeros(num_pairs).index_put((self.inds,), values)


def image_masks(pairs: MatchedPairs) -> ImageMasks:
    """The masks of all pairs. Nothing waits for the device."""
    groups, places, start = [], [], 0
    for group, size in zip(pairs.groups, pairs.sizes):
        if group.predictions.masks is not None:
            groups.append((group.predictions.masks, group.matches))
            places.append(np.arange(start, start + size))
        start += size
    device = pairs.targets.whwh.device
    embeddings = torch.cat([masks.embeddings[matches.query] for masks, matches in groups])
    image_inds, gt_inds = (torch.cat(inds) for inds in zip(*(matches.ground_truth for _, matches in groups)))
    rows = pairs.targets.required_masks().rows(image_inds, gt_inds)
    features = groups[0][0].features
    by_image = pairs_by_image([(matches.num_layers, matches.pairs_per_image) for _, matches in groups])
    chosen = [torch.from_numpy(inds).to(device, non_blocking=True) for inds in by_image]
    images = [MaskPairs(embeddings[inds], features[image], rows[inds]) for image, inds in enumerate(chosen)]
    inds = np.concatenate(places)[np.concatenate(by_image)]
    return ImageMasks(images, torch.from_numpy(inds).to(device, non_blocking=True))


def mask_iou(pairs: MatchedPairs) -> Tensor:
    """(M,) IoU of the matched masks, detached; of the boxes where queries have no masks."""
    masks = pairs.once(image_masks)
    height, width = masks.images[0].mask_features.shape[1:]
    found = mask_ious(masks.images, pairs.targets.required_masks().averages((height, width)))
    return pairs.quality.index_put((masks.inds,), found)


class MaskLosses:
    """Cross-entropy and dice of the masks of all pairs, (M,) each, unweighted, at points that both share.

    Args:
        sampler: chooses the points.
        rand: see :func:`mask_point_losses`.
    """

    def __init__(self, sampler: PointSampler, rand: Draw = torch.rand) -> None:
        self.sampler = sampler
        self.rand = rand

    def __call__(self, pairs: MatchedPairs) -> Tuple[Tensor, Tensor]:
        masks = pairs.once(image_masks)
        losses = mask_point_losses(masks.images, pairs.targets.required_masks(), self.sampler, self.rand)
        cross_entropy, dice = (masks.spread(loss, sum(pairs.sizes)) for loss in losses)
        return cross_entropy, dice


class MaskTerm(PairTerm):
    """One of the two losses of masks. Queries without masks have none.

    Args:
        losses: of both, shared with the other term.
        kind: ``'mask'`` for cross-entropy or ``'dice'``.
        loss_weight: its factor.

    Source: arXiv:2206.02777, arXiv:2112.01527 Sec. 3.3.
    """

    def __init__(self, losses: MaskLosses, kind: str, loss_weight: float) -> None:
        self.name = f'loss_{kind}'
        self.index = ('mask', 'dice').index(kind)
        self.losses = losses
        self.loss_weight = loss_weight

    def __call__(self, pairs: MatchedPairs) -> List[Optional[Tensor]]:
        sums = super().__call__(pairs)
        return [each if group.predictions.masks is not None else None for group, each in zip(pairs.groups, sums)]

    def values(self, pairs: MatchedPairs) -> Tensor:
        return pairs.once(self.losses)[self.index] * self.loss_weight


class ThingsOnly(PairTerm):
    """A box loss that stuff does not have. The divisor stays that of all pairs, as in the released code.

    Args:
        term: the loss.
        num_things: classes from this number on are stuff.

    Source: arXiv:2206.02777, "decoupled box prediction".
    """

    def __init__(self, term: PairTerm, num_things: int) -> None:
        self.name = term.name
        self.sync_avg_factor = term.sync_avg_factor
        self.term = term
        self.num_things = num_things

    def values(self, pairs: MatchedPairs) -> Tensor:
        is_thing = pairs.targets.labels[pairs.ground_truth] < self.num_things
        return self.term.values(pairs) * is_thing


class MaskClassTerm(ClassTerm):
    """Classification loss, supervised by the position of boxes, masks, or both.

    Args:
        position_metric: ``'box'``, ``'mask'`` or ``'mean'``; see
            :mod:`~mmdet_stable.models.task_modules.position_metric`.
        num_things: classes from this number on are stuff, which masks place whatever the metric; None for no stuff.
        Others: see :class:`ClassTerm`.
    """

    def __init__(self, *args, position_metric: str = 'box', num_things: Optional[int] = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.position_metric = position_metric
        self.num_things = num_things

    def quality(self, pairs: MatchedPairs) -> Tensor:
        is_thing = None
        if self.num_things is not None:
            is_thing = pairs.targets.labels[pairs.ground_truth] < self.num_things
        return position_quality(self.position_metric, lambda: pairs.quality, lambda: pairs.once(mask_iou), is_thing)

    def pairwise_quality(self, pairwise: Pairwise) -> Tensor:
        is_thing = None
        if self.num_things is not None:
            is_thing = (pairwise.targets.labels < self.num_things)[..., None]
        mask = (lambda: pairwise.masks.iou) if pairwise.has_masks else (lambda: pairwise.iou)
        return position_quality(self.position_metric, lambda: pairwise.iou, mask, is_thing)


class SoftmaxClassTerm(ClassTerm):
    """Classification loss of a softmax over the classes and background: the weighted mean over queries, as in the
    released code, and not a sum over the number of pairs.

    Args:
        loss_cls: mmdet's ``CrossEntropyLoss`` with ``class_weight`` of C + 1 numbers, background last.
        dn_loss_cls: that of denoising queries.
    """

    def __init__(self, loss_cls: torch.nn.Module, dn_loss_cls: Optional[torch.nn.Module] = None) -> None:
        super().__init__(loss_cls, dn_loss_cls)
        self.sync_avg_factor = None

    def _group_loss(self, group: Supervised, targets: BatchTargets, quality: Tensor) -> Tensor:
        logits, matches = group.predictions.logits, group.matches
        if logits.numel() == 0:
            return logits.sum((1, 2, 3))
        loss_cls = self.dn_loss_cls if group.is_denoising else self.loss_cls
        gt_labels = targets.labels[matches.ground_truth]
        labels = gt_labels.new_full(logits.shape[:3], logits.shape[-1] - 1).index_put(matches.query, gt_labels)
        weights = logits.new_tensor(loss_cls.class_weight)[labels]
        loss = loss_cls(logits.flatten(0, 2), labels.flatten(), reduction_override='none').view(labels.shape)
        if group.in_loss is not None:
            loss, weights = loss * group.in_loss, weights * group.in_loss
        return loss.sum((1, 2)) / weights.sum((1, 2)).clamp(min=torch.finfo(weights.dtype).eps)
