"""Which query answers for which ground truth."""

from typing import FrozenSet, NamedTuple, Tuple

from torch import Tensor


class Matches(NamedTuple):
    """Which query answers for which ground truth: M = K * P pairs, layer by layer.

    Every layer has the same number of pairs, so a per-pair value reshapes to (K, P).

    Attributes:
        layer_inds, image_inds, query_inds, gt_inds: (M,) int64 on the predictions' device.
        num_layers: K.
        num_groups: how often the matching repeats itself: the groups of denoising queries, 1 elsewhere.
        skipped_images: images whose predictions are not finite, to be left out of all losses.
        pairs_per_image: how many pairs of a layer belong to each image. Python integers, as in ``BatchTargets``.
    """

    layer_inds: Tensor
    image_inds: Tensor
    query_inds: Tensor
    gt_inds: Tensor
    num_layers: int
    num_groups: int = 1
    skipped_images: FrozenSet[int] = frozenset()
    pairs_per_image: Tuple[int, ...] = ()

    @property
    def query(self) -> Tuple[Tensor, Tensor, Tensor]:
        """Index of the matched queries in a tensor of (K, B, Q, ...)."""
        return self.layer_inds, self.image_inds, self.query_inds

    @property
    def ground_truth(self) -> Tuple[Tensor, Tensor]:
        """Index of the matched ground truths in a tensor of (B, G, ...)."""
        return self.image_inds, self.gt_inds

    @property
    def num_per_layer(self) -> int:
        """P, the positives of one layer over the whole batch."""
        return len(self.query_inds) // self.num_layers
