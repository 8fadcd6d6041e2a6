"""How queries learn which ground truth they answer for: the assigner finds out, or their making tells."""

from typing import Dict, Iterable, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from .matches import Matches


class Matched(NamedTuple):
    """Queries whose ground truth the assigner finds.

    Attributes:
        copies: to how many queries each ground truth is matched; more than 1 for one-to-many queries (k of H-DETR).
        loss_weight: factor of all their losses, on top of the losses' own (lambda of H-DETR).

    Source: arXiv:2005.12872; arXiv:2207.13080 Sec. 3.2 for copies.
    """

    copies: int = 1
    loss_weight: float = 1.0


class DenoisingLayout(NamedTuple):
    """Queries whose ground truth is known, because they were made of it: the T denoising queries of an image.

    They lie in equal groups. A group has one slot for each ground truth of the image with most, or two: with
    negatives, slot j < J is the positive query of the image's j-th shown ground truth and slot J + j its negative. The
    slots that an image with fewer ground truths leaves empty are padding.

    Attributes:
        num_groups: groups per image.
        num_slots: J, positive slots of a group.
        num_shown: ground truths shown of each image, at most J. Python integers, as in :class:`BatchTargets`.
        with_negatives: whether the second half of each group is negatives.
        gt_inds: (B, J) int64, which ground truth a slot shows; None where slot j shows ground truth j.
        ignore_padding: whether padding is left out of loss and attention; otherwise it counts as background, like
            negatives.
        hide_denoising: whether matching queries see no denoising query.
        isolate_groups: whether a group sees no other group.
    """

    num_groups: int
    num_slots: int
    num_shown: Tuple[int, ...]
    with_negatives: bool = False
    gt_inds: Optional[Tensor] = None
    ignore_padding: bool = False
    hide_denoising: bool = True
    isolate_groups: bool = True

    @property
    def loss_weight(self) -> float:
        """Factor of all their losses, as of :class:`Matched`."""
        return 1.0

    @classmethod
    def of_mmdet(cls, dn_meta: Dict[str, int], num_gts: Tuple[int, ...]) -> 'DenoisingLayout':
        """The layout of mmdet's ``CdnQueryGenerator``, from the numbers that it returns."""
        group_size = dn_meta['num_denoising_queries'] // dn_meta['num_denoising_groups']
        return cls(dn_meta['num_denoising_groups'], group_size // 2, num_gts, with_negatives=True)

    @property
    def num_repeats(self) -> int:
        """How many queries an image has for each of its slots: one in each group, or two with negatives."""
        return self.num_groups * (2 if self.with_negatives else 1)

    @property
    def num_queries(self) -> int:
        """T."""
        return self.num_repeats * self.num_slots

    @property
    def group_size(self) -> int:
        """Queries of a group."""
        return self.num_queries // self.num_groups

    @property
    def leaves_out(self) -> bool:
        """Whether any query is to be left out of loss and attention."""
        return self.ignore_padding and min(self.num_shown) < self.num_slots

    def without(self, images: Iterable[int]) -> 'DenoisingLayout':
        """This layout without the ground truth of some images."""
        num_shown = (0 if image in images else num for image, num in enumerate(self.num_shown))
        return self._replace(num_shown=tuple(num_shown))

    def spread(self, values: Tensor) -> Tensor:
        """Copy a value of each ground truth, (B, G, ...), to all slots, (B, T, ...)."""
        if self.gt_inds is not None:
            rows = torch.arange(len(self.gt_inds), device=self.gt_inds.device)[:, None]
            values = values[rows, self.gt_inds]
        return values.repeat(1, self.num_repeats, *[1] * (values.dim() - 2))

    def shown(self, device: torch.device) -> Tensor:
        """(B, T) bool; True for slots that show a ground truth, False for padding."""
        shown = torch.arange(self.num_slots) < torch.tensor(self.num_shown)[:, None]
        return shown.repeat(1, self.num_repeats).to(device, non_blocking=True)

    def is_negative(self, device: torch.device) -> Tensor:
        """(T,) bool; True for the negative half of each group."""
        group = torch.arange(self.group_size) >= self.num_slots
        return group.repeat(self.num_groups).to(device, non_blocking=True)

    def matches(self, num_layers: int, device: torch.device) -> Matches:
        """The pairs known by construction: a positive slot answers for the ground truth that it shows."""
        shown = np.arange(self.num_slots) < np.array(self.num_shown)[:, None]
        pairs = np.argwhere(shown[:, None] & np.ones((self.num_groups, 1), bool))
        image, group, slot = torch.from_numpy(pairs).to(device, non_blocking=True).repeat(num_layers, 1).T
        query = group * self.group_size + slot
        gt = slot if self.gt_inds is None else self.gt_inds[image, slot]
        layer = torch.arange(num_layers, device=device).repeat_interleave(len(image) // num_layers)
        per_image = tuple(num * self.num_groups for num in self.num_shown)
        return Matches(layer, image, query, gt, num_layers, self.num_groups, pairs_per_image=per_image)


Supervision = Union[Matched, DenoisingLayout]
