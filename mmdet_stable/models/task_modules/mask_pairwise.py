"""What mask costs ask of every (ground truth, query) pair, at points instead of pixels (arXiv:2206.02777 Sec. 3.3)."""

from functools import cached_property
from typing import Iterator, Tuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mmdet_stable.utils.mask_targets import MaskTargets, sample_maps


class MaskSamples:
    """Mask features and ground-truth masks of B images at P points, to be compared by :class:`MaskPairwise`.

    One object serves all branches of a training step, so that points that they share are sampled once.

    Args:
        mask_features: (B, E, h, w), shared by all branches.
        targets: of the same B images.
        points: (1, B, P, 2), shared by all branches, or (S, B, P, 2), drawn for each branch, as in the released code.
            x and y lie in [0, 1].
    """

    def __init__(self, mask_features: Tensor, targets: MaskTargets, points: Tensor) -> None:
        self.mask_features = mask_features.detach()
        self.targets = targets
        self.points = points

    @property
    def shared(self) -> bool:
        """Whether branches share the points."""
        return len(self.points) == 1

    @cached_property
    def _of_all(self) -> Tuple[Tensor, Tensor]:
        return self._sampled(self.points[0])

    def of(self, branch: int) -> Tuple[Tensor, Tensor]:
        """Features (B, E, P) and targets (B, G, P), in float32, at the points of a branch."""
        return self._of_all if self.shared else self._sampled(self.points[branch])

    def _sampled(self, points: Tensor) -> Tuple[Tensor, Tensor]:
        rows = self.targets.padded_rows()
        return sample_maps(self.mask_features.float(), points), self.targets.sample(rows, points[:, None])


class MaskPairwise:
    """Cross-entropy, dice and overlap of the masks of S branches and B images, in float32, without gradient.

    A mask is compared at P random points of the image. Sampling is linear: the logits of Q queries at the points are
    their embeddings times the features sampled there, so that no mask of (h, w) is ever made. Values in padded ground
    truths are finite and meaningless.

    Args:
        embeddings: (S, B, Q, E) mask embeddings.
        samples: of the same B images; where each branch has points of its own, of at least as many as ``first + S``
            branches.
        first: which branch of ``samples`` the first of these branches is.

    Raises:
        ValueError: for points of fewer branches.
    """

    def __init__(self, embeddings: Tensor, samples: MaskSamples, first: int = 0) -> None:
        if not samples.shared and len(samples.points) < first + len(embeddings):
            raise ValueError(
                f'points of {len(samples.points)} branches for branches {first} to {first + len(embeddings) - 1}: give '
                'one for all, or one each'
            )
        self.embeddings = embeddings.detach().float()
        self.samples = samples
        self.first = first

    @cached_property
    def cross_entropy(self) -> Tensor:
        """(S, B, G, Q) binary cross-entropy, mean over the points."""
        return self._terms[0]

    @cached_property
    def dice(self) -> Tensor:
        """(S, B, G, Q) ``1 - (2 * s.g + 1) / (sum(s) + sum(g) + 1)`` of the scores s and targets g, in [0, 1]."""
        return self._terms[1]

    @cached_property
    def iou(self) -> Tensor:
        """(S, B, G, Q) IoU of positive logits with targets of at least a half, at the points; coarse for small objects.

        0 where neither has a point.
        """
        overlaps = self._empty()
        with torch.autocast(overlaps.device.type, enabled=False):
            for branch, (features, targets) in enumerate(self._samples()):
                positive = (self.embeddings[branch] @ features > 0).float().transpose(1, 2)
                inside = (targets >= 0.5).float()
                both = inside @ positive
                either = inside.sum(2)[..., None] + positive.sum(1)[:, None] - both
                overlaps[branch] = both / either.clamp(min=1)
        return overlaps

    @cached_property
    def _terms(self) -> Tuple[Tensor, Tensor]:
        cross_entropy, dice = self._empty(), self._empty()
        with torch.autocast(dice.device.type, enabled=False):
            for branch, (features, targets) in enumerate(self._samples()):
                cross_entropy[branch], dice[branch] = pair_terms(self.embeddings[branch], features, targets)
        return cross_entropy, dice

    def _samples(self) -> Iterator[Tuple[Tensor, Tensor]]:
        """Features (B, E, P) and targets (B, G, P) of one branch after another."""
        return map(self.samples.of, range(self.first, self.first + len(self.embeddings)))

    def _empty(self) -> Tensor:
        num_branches, num_images, num_queries = self.embeddings.shape[:3]
        return self.embeddings.new_empty(num_branches, num_images, max(self.samples.targets.num_gts), num_queries)


def pair_terms(embeddings: Tensor, features: Tensor, targets: Tensor) -> Tuple[Tensor, Tensor]:
    """Cross-entropy and dice (B, G, Q) of embeddings (B, Q, E), features (B, E, P) and targets (B, G, P)."""
    logits = embeddings @ features  # (B, Q, P)
    # x.g of all pairs, without the logits: the embeddings times (features.g), which is only (B, E, G).
    products = (features @ targets.transpose(1, 2)).transpose(1, 2) @ embeddings.transpose(1, 2)
    cross_entropy = (softplus(logits).sum(2)[:, None] - products) / features.shape[2]
    scores = logits.sigmoid_()
    both = targets @ scores.transpose(1, 2)
    either = scores.sum(2)[:, None] + targets.sum(2)[..., None]
    return cross_entropy, 1 - (2 * both + 1) / (either + 1)


def random_points(
    num_branches: int, num_images: int, num_points: int, device: torch.device, shared: bool = True
) -> Tensor:
    """Uniform points for :class:`MaskSamples`: (1, B, P, 2) where branches share them, or (S, B, P, 2)."""
    return torch.rand(1 if shared else num_branches, num_images, num_points, 2, device=device)


def with_stuff_costs(box_costs: Tensor, is_thing: Tensor, valid: Tensor) -> Tensor:
    """Box costs in which stuff, whose boxes mean little, costs the same for all queries.

    Args:
        box_costs: (S, B, G, Q), L1 or GIoU.
        is_thing: (B, G) bool; False for stuff.
        valid: (B, G) bool; False in padding.

    Returns:
        The same with the mean over all things of the image in the rows of stuff; 0 in images without things.
    """
    counted = (is_thing & valid)[..., None]
    total = box_costs.masked_fill(~counted, 0).sum((-2, -1), keepdim=True)
    number = counted.sum((-2, -1), keepdim=True) * box_costs.shape[-1]
    return torch.where(is_thing[..., None], box_costs, total / number.clamp(min=1))
