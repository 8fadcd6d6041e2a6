"""The values that travel between detector, assigner and loss.

Sizes used in every shape of this package: S branches (decoder layers, encoder), B images, Q queries, C classes,
G the largest number of ground truths of an image of the batch, P positives of a branch.
"""

from typing import Dict, FrozenSet, Iterable, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Branches(NamedTuple):
    """Predictions of S branches over the same queries.

    Attributes:
        logits: (S, B, Q, C) raw class scores.
        boxes_cxcywh: (S, B, Q, 4), normalised by the image to [0, 1].
        prefixes: S prefixes of the loss keys, e.g. ``'d0.'``, ``''``, ``'enc_'``, ``'d0.dn_'``.
        class_agnostic: whether every ground truth counts as class 0, as for the encoder of a two-stage Deformable-DETR.
        num_copies: how many queries each ground truth is matched to; more than 1 for one-to-many branches.
        loss_weight: factor of all losses of these branches, on top of the losses' own.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    prefixes: Tuple[str, ...]
    class_agnostic: bool = False
    num_copies: int = 1
    loss_weight: float = 1.0

    def float(self) -> 'Branches':
        """The same in float32."""
        return self._replace(logits=self.logits.float(), boxes_cxcywh=self.boxes_cxcywh.float())

    def detach(self) -> 'Branches':
        """The same without gradient."""
        return self._replace(logits=self.logits.detach(), boxes_cxcywh=self.boxes_cxcywh.detach())


class BatchTargets(NamedTuple):
    """Ground truth of a batch, padded to the image with most boxes.

    Attributes:
        labels: (B, G) int64; 0 in padding.
        boxes_cxcywh: (B, G, 4) normalised; 0 in padding.
        boxes_xyxy: (B, G, 4) in pixels of the network's input; 0 in padding.
        valid: (B, G) bool; True for ground truth, False for padding.
        whwh: (B, 4) width, height, width, height of each image in pixels, without the batch's padding.
        num_gts: boxes of each image. Python integers, so that reading them never waits for the device.
        img_shapes: (height, width) of each image, the same as ``whwh`` but on the host.
        img_names: what error messages call each image: its file, where known.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    boxes_xyxy: Tensor
    valid: Tensor
    whwh: Tensor
    num_gts: Tuple[int, ...]
    img_shapes: Tuple[Tuple[int, int], ...]
    img_names: Tuple[str, ...] = ()

    @property
    def is_padded(self) -> bool:
        """Whether any image has fewer boxes than G."""
        return len(set(self.num_gts)) > 1

    def of(self, branches: Branches) -> 'BatchTargets':
        """The targets as these branches see them."""
        return self._replace(labels=torch.zeros_like(self.labels)) if branches.class_agnostic else self

    @classmethod
    def from_instances(cls, gt_instances: Sequence[InstanceData], img_metas: Sequence[dict]) -> 'BatchTargets':
        """Pad the ``bboxes`` (absolute xyxy) and ``labels`` of B images; sizes come from ``img_meta['img_shape']``."""
        boxes = [get_box_tensor(instances.bboxes).float() for instances in gt_instances]
        num_gts = tuple(len(image_boxes) for image_boxes in boxes)
        img_shapes = tuple(tuple(meta['img_shape'][:2]) for meta in img_metas)
        device = boxes[0].device
        whwh = torch.tensor([(w, h, w, h) for h, w in img_shapes], dtype=torch.float32).to(device, non_blocking=True)
        valid = torch.arange(max(num_gts)) < torch.tensor(num_gts)[:, None]
        boxes_xyxy = pad_sequence(boxes, batch_first=True)
        return cls(
            labels=pad_sequence([instances.labels for instances in gt_instances], batch_first=True),
            boxes_cxcywh=bbox_xyxy_to_cxcywh(boxes_xyxy / whwh[:, None]),
            boxes_xyxy=boxes_xyxy,
            valid=valid.to(device, non_blocking=True),
            whwh=whwh,
            num_gts=num_gts,
            img_shapes=img_shapes,
            img_names=tuple(
                meta.get('img_path') or f'image {index} of the batch' for index, meta in enumerate(img_metas)
            ),
        )


class OneToMany(NamedTuple):
    """Queries for training only, several of which answer for each ground truth (H-DETR).

    Attributes:
        num_queries: how many, after the one-to-one queries.
        num_copies: to how many of them each ground truth is matched; k of the paper.
        loss_weight: factor of their losses; lambda of the paper.

    Source: arXiv:2207.13080 Sec. 3.2.
    """

    num_queries: int
    num_copies: int = 6
    loss_weight: float = 1.0

    def checked(self) -> 'OneToMany':
        """The same; raises ValueError for numbers that make no sense."""
        if self.num_queries < 1 or self.num_copies < 1 or self.loss_weight < 0:
            raise ValueError(
                f'one_to_many={self._asdict()}: num_queries and num_copies must be at least 1 and loss_weight at least '
                '0; leave one_to_many out to train without'
            )
        return self


class Matches(NamedTuple):
    """Which query answers for which ground truth: M = S * P pairs, branch by branch.

    Every branch has the same number of pairs, so a per-pair value reshapes to (S, P).

    Attributes:
        branch_inds, image_inds, query_inds, gt_inds: (M,) int64 on the predictions' device.
        num_branches: S.
        skipped_images: images whose predictions are not finite, to be left out of all losses.
    """

    branch_inds: Tensor
    image_inds: Tensor
    query_inds: Tensor
    gt_inds: Tensor
    num_branches: int
    skipped_images: FrozenSet[int] = frozenset()

    @property
    def query(self) -> Tuple[Tensor, Tensor, Tensor]:
        """Index of the matched queries in a tensor of (S, B, Q, ...)."""
        return self.branch_inds, self.image_inds, self.query_inds

    @property
    def ground_truth(self) -> Tuple[Tensor, Tensor]:
        """Index of the matched ground truths in a tensor of (B, G, ...)."""
        return self.image_inds, self.gt_inds

    @property
    def num_per_branch(self) -> int:
        """P, the positives of one branch over the whole batch."""
        return len(self.query_inds) // self.num_branches


class DenoisingLayout(NamedTuple):
    """Where the T denoising queries of an image lie: equal groups, in front of the matching queries.

    A group has one slot for each ground truth of the image with most, or twice as many: with negatives, slot j < P is
    the positive query of the image's j-th shown ground truth and slot P + j its negative. The slots that an image with
    fewer ground truths leaves empty are padding.

    Attributes:
        num_groups: groups per image.
        num_slots: P, positive slots of a group.
        num_shown: ground truths shown of each image, at most P. Python integers, as in :class:`BatchTargets`.
        with_negatives: whether the second half of each group is negatives.
        gt_inds: (B, P) int64, which ground truth a slot shows; None where slot j shows ground truth j.
        ignore_padding: whether padding is left out of the loss; otherwise it counts as background, like negatives.
    """

    num_groups: int
    num_slots: int
    num_shown: Tuple[int, ...]
    with_negatives: bool = False
    gt_inds: Optional[Tensor] = None
    ignore_padding: bool = False

    @classmethod
    def of_mmdet(cls, dn_meta: Dict[str, int], num_gts: Tuple[int, ...]) -> 'DenoisingLayout':
        """The layout of mmdet's ``CdnQueryGenerator``."""
        group_size = dn_meta['num_denoising_queries'] // dn_meta['num_denoising_groups']
        return cls(dn_meta['num_denoising_groups'], group_size // 2, num_gts, with_negatives=True)

    @property
    def num_queries(self) -> int:
        """T."""
        return self.num_groups * self.num_copies * self.num_slots

    @property
    def num_copies(self) -> int:
        """Queries of one ground truth in a group: 2 with negatives, else 1."""
        return 1 + self.with_negatives

    @property
    def is_padded(self) -> bool:
        """Whether any image leaves slots empty."""
        return min(self.num_shown) < self.num_slots

    def without(self, images: Iterable[int]) -> 'DenoisingLayout':
        """The same, showing no ground truth of some images."""
        num_shown = (0 if image in images else num for image, num in enumerate(self.num_shown))
        return self._replace(num_shown=tuple(num_shown))

    def spread(self, *values: Tensor) -> Tuple[Tensor, ...]:
        """Copy values of the ground truths, (B, G, ...), to all slots, (B, T, ...)."""
        if self.gt_inds is not None:
            rows = torch.arange(len(self.gt_inds), device=self.gt_inds.device)[:, None]
            values = tuple(value[rows, self.gt_inds] for value in values)
        repeats = self.num_groups * self.num_copies
        return tuple(value.repeat(1, repeats, *[1] * (value.dim() - 2)) for value in values)

    def valid(self, device: torch.device) -> Tensor:
        """(B, T) bool; True for slots that show a ground truth."""
        shown = torch.arange(self.num_slots) < torch.tensor(self.num_shown)[:, None]
        return shown.repeat(1, self.num_groups * self.num_copies).to(device, non_blocking=True)

    def is_negative(self, device: torch.device) -> Tensor:
        """(T,) bool; True for the negative half of each group."""
        group = torch.arange(self.num_copies * self.num_slots) >= self.num_slots
        return group.repeat(self.num_groups).to(device, non_blocking=True)

    def matches(self, num_branches: int, device: torch.device) -> Matches:
        """The pairs known by construction: a positive slot answers for the ground truth that it shows."""
        shown = np.arange(self.num_slots) < np.array(self.num_shown)[:, None]
        pairs = np.argwhere(shown[:, None] & np.ones((self.num_groups, 1), bool))
        image, group, slot = torch.from_numpy(pairs).to(device, non_blocking=True).repeat(num_branches, 1).T
        query = group * (self.num_copies * self.num_slots) + slot
        gt = slot if self.gt_inds is None else self.gt_inds[image, slot]
        branch = torch.arange(num_branches, device=device).repeat_interleave(len(image) // num_branches)
        return Matches(branch, image, query, gt, num_branches)
