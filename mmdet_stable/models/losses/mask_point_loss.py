"""Losses of matched masks at points where they are uncertain (arXiv:2112.01527 Sec. 3.3, as used by MaskDINO)."""

from typing import Callable, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.checkpoint import checkpoint

from mmdet_stable.structures import MaskTargets
from mmdet_stable.utils import sample_maps

PAIRS_AT_A_TIME = 128  # whose candidates are held at once
Draw = Callable[..., Tensor]  # torch.rand, or recorded draws


class MaskPairs(NamedTuple):
    """Matched pairs of one image, of any layers.

    Attributes:
        embeddings: (M, E) mask embeddings of the queries, with gradient.
        mask_features: (E, h, w) of the image, with gradient.
        rows: (M,) int64, the ground truths' rows in ``MaskTargets``.
    """

    embeddings: Tensor
    mask_features: Tensor
    rows: Tensor


class PointSampler:
    """Chooses P points of each pair's mask: mostly the most uncertain ones of a random choice, some at random.

    Args:
        num_points: P.
        oversample_ratio: ``int(oversample_ratio * P)`` candidates are drawn, at least P.
        importance_sample_ratio: ``int(importance_sample_ratio * P)`` points are the candidates whose logits are nearest
            to 0; the others are new random ones.
        share_candidates: whether all pairs of an image draw from the same candidates. Then the features are sampled
            once for all of them, and masks of (h, w) are not needed; otherwise each pair has candidates of its own, as
            in the released code.

    Raises:
        ValueError: for settings out of range.
    """

    def __init__(
        self,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        share_candidates: bool = True,
    ) -> None:
        if num_points < 1 or oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
            raise ValueError(
                f'num_points={num_points} must be at least 1, oversample_ratio={oversample_ratio} at least 1, and '
                f'importance_sample_ratio={importance_sample_ratio} between 0 and 1'
            )
        self.num_points = num_points
        self.num_candidates = int(num_points * oversample_ratio)
        self.num_uncertain = int(num_points * importance_sample_ratio)
        self.share_candidates = share_candidates

    def candidates(self, pairs: MaskPairs, rand: Draw = torch.rand) -> Iterator['Candidates']:
        """Draw what the points of an image's pairs are chosen from, for a few pairs at a time.

        Args:
            rand: draws the candidates, (m, 3P, 2), and then, unless all points are uncertain ones, the random points,
                (m, P - 0.75P, 2), of m pairs; with ``share_candidates`` once, for m = 1.
        """
        device = pairs.embeddings.device
        if self.share_candidates:
            points = self._drawn(1, device, rand)
            features = sample_maps(pairs.mask_features[None], points)[0]
        for start in range(0, len(pairs.embeddings), PAIRS_AT_A_TIME):
            part = slice(start, start + PAIRS_AT_A_TIME)
            embeddings, rows = pairs.embeddings[part], pairs.rows[part]
            if self.share_candidates:
                yield Candidates(embeddings, rows, features, points[0])
            else:
                yield Candidates(embeddings, rows, pairs.mask_features, self._drawn(len(rows), device, rand))

    def choose(self, candidates: 'Candidates') -> Tuple[Tensor, Tensor]:
        """The points of m pairs, (m, P, 2), and the logits there, (m, P), with gradient."""
        embeddings, _, features, points = candidates
        if points.dim() == 2:
            logits = embeddings @ features
            inds = self._chosen(logits.detach())
            return points[inds], logits.gather(1, inds)
        masks = masks_of(embeddings, features)[:, None]
        with torch.no_grad():
            inds = self._chosen(sample_maps(masks, points[:, : self.num_candidates])[:, 0])
            points = points.gather(1, inds[..., None].expand(-1, -1, 2))
        return points, sample_maps(masks, points)[:, 0]

    def _drawn(self, num_rows: int, device: torch.device, rand: Draw) -> Tensor:
        """Candidates, and random points behind them: (num_rows, 3P + P - 0.75P, 2)."""
        drawn = [rand(num_rows, self.num_candidates, 2, device=device)]
        num_random = self.num_points - self.num_uncertain
        if num_random:
            drawn.append(rand(num_rows, num_random, 2, device=device))
        return torch.cat(drawn, 1)

    def _chosen(self, logits: Tensor) -> Tensor:
        """(m, P) indices: of the candidates those with the smallest of their logits (m, 3P or more), and all random
        points."""
        candidates = logits[:, : self.num_candidates]
        uncertain = candidates.abs().topk(self.num_uncertain, 1, largest=False, sorted=False).indices
        num_random = self.num_points - self.num_uncertain
        random = torch.arange(self.num_candidates, self.num_candidates + num_random, device=logits.device)
        return torch.cat([uncertain, random.expand(len(logits), -1)], 1)


class Candidates(NamedTuple):
    """Some pairs of an image, and n points that theirs are chosen from.

    Attributes:
        embeddings: (m, E) mask embeddings of the queries, with gradient.
        rows: (m,) int64, the ground truths' rows in ``MaskTargets``.
        features: (E, h, w) of the image; (E, n), sampled at the points, where all pairs of the image share these.
        points: (m, n, 2), or (n, 2) where shared; x and y in [0, 1]. Candidates first, then the random points.
    """

    embeddings: Tensor
    rows: Tensor
    features: Tensor
    points: Tensor


def pairs_by_image(groups: Sequence[Tuple[int, Sequence[int]]]) -> List[np.ndarray]:
    """Where the pairs of each image stand, among the pairs of all groups, without asking the device.

    Args:
        groups: of each, how many layers it has, and how many pairs each of B images has in a layer. Its pairs stand
            layer by layer, in each of which image by image, as in ``Matches``.

    Returns:
        For each image, the indices of its pairs, ascending.
    """
    images = [np.tile(np.repeat(np.arange(len(counts)), counts), num_layers) for num_layers, counts in groups]
    image_of_pair = np.concatenate(images)
    return [np.flatnonzero(image_of_pair == image) for image in range(len(groups[0][1]))]


def masks_of(embeddings: Tensor, mask_features: Tensor) -> Tensor:
    """(M, h, w) mask logits of embeddings (M, E) and features (E, h, w)."""
    return (embeddings @ mask_features.flatten(1)).unflatten(1, mask_features.shape[1:])


def mask_losses(logits: Tensor, targets: Tensor) -> Tuple[Tensor, Tensor]:
    """Losses of M masks from P points of each.

    Args:
        logits: (M, P).
        targets: (M, P) in [0, 1].

    Returns:
        (M,) binary cross-entropy, mean over the points, and (M,) dice ``1 - (2 * s.g + 1) / (sum(s) + sum(g) + 1)``.
    """
    cross_entropy = binary_cross_entropy_with_logits(logits, targets, reduction='none').mean(1)
    scores = logits.sigmoid()
    dice = 1 - (2 * (scores * targets).sum(1) + 1) / (scores.sum(1) + targets.sum(1) + 1)
    return cross_entropy, dice


def mask_point_losses(
    images: Sequence[MaskPairs], targets: MaskTargets, sampler: PointSampler, rand: Draw = torch.rand
) -> Tuple[Tensor, Tensor]:
    """Losses of all matched pairs of B images, in float32.

    Nothing but the candidates is kept for the backward pass, which chooses the points again: what hangs on the points
    of all pairs would be most of the memory of all losses, for a third of their time.

    Args:
        images: the pairs of each image, those of all layers together.

    Returns:
        Cross-entropy and dice (M,) each, image by image, in the order of the pairs. Without any pair they are empty,
        and still hang on the graph.
    """

    def losses_at_points(candidates: Candidates) -> Tuple[Tensor, Tensor]:
        points, logits = sampler.choose(candidates)
        return mask_losses(logits, targets.sample(candidates.rows, points))

    losses: List[Tuple[Tensor, Tensor]] = []
    for pairs in images:
        pairs = MaskPairs(pairs.embeddings.float(), pairs.mask_features.float(), pairs.rows)
        if len(pairs.rows) == 0:
            nothing = (pairs.embeddings @ pairs.mask_features.flatten(1)[:, :1]).sum(1)
            losses.append((nothing, nothing))
            continue
        for candidates in sampler.candidates(pairs, rand):
            losses.append(checkpoint(losses_at_points, candidates, use_reentrant=False, preserve_rng_state=False))
    cross_entropy, dice = zip(*losses)
    return torch.cat(cross_entropy), torch.cat(dice)


@torch.no_grad()
def mask_ious(images: Sequence[MaskPairs], averages: Tensor) -> Tensor:
    """IoU of the predicted masks of matched pairs with their ground truths, on the grid of the mask features.

    Args:
        images: as in :func:`mask_point_losses`.
        averages: (N, h, w) of ``MaskTargets.averages``, what share of each cell a ground truth covers.

    Returns:
        (M,) in [0, 1], detached: a positive logit counts as a whole cell.
    """
    ious = []
    for pairs in images:
        features = pairs.mask_features.float()
        for embeddings, rows in zip(pairs.embeddings.split(PAIRS_AT_A_TIME), pairs.rows.split(PAIRS_AT_A_TIME)):
            covered = averages[rows]
            positive = (masks_of(embeddings.float(), features) > 0).float()
            both = (positive * covered).sum((1, 2))
            ious.append(both / (positive.sum((1, 2)) + covered.sum((1, 2)) - both).clamp(min=1e-6))
    return torch.cat(ious) if ious else averages.new_zeros(0)
