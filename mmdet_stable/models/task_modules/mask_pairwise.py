"""What mask costs ask of every (ground truth, query) pair, at points instead of pixels (arXiv:2206.02777 Sec. 3.3)."""

from functools import cached_property
from typing import Iterator, Tuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mmdet_stable.structures import MaskSamples


class MaskPairwise:
    """Cross-entropy, dice and overlap of the masks of K layers and B images, in float32, without gradient.

    A mask is compared at P random points of the image. Sampling is linear: the logits of Q queries at the points are
    their embeddings times the features sampled there, so that no mask of (h, w) is ever made. Values in padded ground
    truths are finite and meaningless.

    Args:
        embeddings: (K, B, Q, E) mask embeddings.
        samples: of the same B images; where each layer has points of its own, of at least as many as ``first + K``
            layers.
        first: which layer of ``samples`` the first of these layers is.

    Raises:
        ValueError: for points of fewer layers.
    """

    def __init__(self, embeddings: Tensor, samples: MaskSamples, first: int = 0) -> None:
        if not samples.shared and len(samples.points) < first + len(embeddings):
            raise ValueError(
                f'points of {len(samples.points)} layers for layers {first} to {first + len(embeddings) - 1}: give '
                'one for all, or one each'
            )
        self.embeddings = embeddings.detach().float()
        self.samples = samples
        self.first = first

    @cached_property
    def cross_entropy(self) -> Tensor:
        """(K, B, G, Q) binary cross-entropy, mean over the points."""
        return self._terms[0]

    @cached_property
    def dice(self) -> Tensor:
        """(K, B, G, Q) ``1 - (2 * s.g + 1) / (sum(s) + sum(g) + 1)`` of the scores s and targets g, in [0, 1]."""
        return self._terms[1]

    @cached_property
    def iou(self) -> Tensor:
        """(K, B, G, Q) IoU of positive logits with targets of at least a half, at the points; coarse for small objects.

        0 where neither has a point.
        """
        overlaps = self._empty()
        with torch.autocast(overlaps.device.type, enabled=False):
            for layer, (features, targets) in enumerate(self._samples()):
                positive = (self.embeddings[layer] @ features > 0).float().transpose(1, 2)
                inside = (targets >= 0.5).float()
                both = inside @ positive
                either = inside.sum(2)[..., None] + positive.sum(1)[:, None] - both
                overlaps[layer] = both / either.clamp(min=1)
        return overlaps

    @cached_property
    def _terms(self) -> Tuple[Tensor, Tensor]:
        cross_entropy, dice = self._empty(), self._empty()
        with torch.autocast(dice.device.type, enabled=False):
            for layer, (features, targets) in enumerate(self._samples()):
                cross_entropy[layer], dice[layer] = pair_terms(self.embeddings[layer], features, targets)
        return cross_entropy, dice

    def at_points(self, layer: int, image: int) -> Tuple[Tensor, Tensor]:
        """Logits (Q, P) and targets (G, P) of one layer and image, without padding."""
        features, targets = self.samples.of(self.first + layer)
        return self.embeddings[layer, image] @ features[image], targets[image, : self.samples.targets.num_gts[image]]

    def _samples(self) -> Iterator[Tuple[Tensor, Tensor]]:
        """Features (B, E, P) and targets (B, G, P) of one layer after another."""
        return map(self.samples.of, range(self.first, self.first + len(self.embeddings)))

    def _empty(self) -> Tensor:
        num_layers, num_images, num_queries = self.embeddings.shape[:3]
        return self.embeddings.new_empty(num_layers, num_images, max(self.samples.targets.num_gts), num_queries)


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
    num_layers: int, num_images: int, num_points: int, device: torch.device, shared: bool = True
) -> Tensor:
    """Uniform points for :class:`MaskSamples`: (1, B, P, 2) where layers share them, or (K, B, P, 2)."""
    return torch.rand(1 if shared else num_layers, num_images, num_points, 2, device=device)
