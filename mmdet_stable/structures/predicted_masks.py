"""Masks that layers predict, as factors, and their values at the points where matching compares them."""

from functools import cached_property
from typing import NamedTuple, Optional, Tuple

from torch import Tensor

from mmdet_stable.utils import sample_maps

from .mask_targets import MaskTargets


class MaskSamples:
    """Mask features and ground-truth masks of B images at P points.

    One object serves all layers of a training step, so that points that they share are sampled once.

    Args:
        mask_features: (B, E, h, w), shared by all layers.
        targets: of the same B images.
        points: (1, B, P, 2), shared by all layers, or (K, B, P, 2), drawn for each layer, as in the released code of
            MaskDINO. x and y lie in [0, 1].
    """

    def __init__(self, mask_features: Tensor, targets: MaskTargets, points: Tensor) -> None:
        self.mask_features = mask_features.detach()
        self.targets = targets
        self.points = points

    @property
    def shared(self) -> bool:
        """Whether layers share the points."""
        return len(self.points) == 1

    @cached_property
    def _of_all(self) -> Tuple[Tensor, Tensor]:
        return self._sampled(self.points[0])

    def of(self, layer: int) -> Tuple[Tensor, Tensor]:
        """Features (B, E, P) and targets (B, G, P), in float32, at the points of a layer."""
        return self._of_all if self.shared else self._sampled(self.points[layer])

    def of_image(self, image: int) -> 'MaskSamples':
        """Those of one image, as a batch of one."""
        one = slice(image, image + 1)
        return MaskSamples(self.mask_features[one], self.targets.of_image(image), self.points[:, one])

    def _sampled(self, points: Tensor) -> Tuple[Tensor, Tensor]:
        rows = self.targets.padded_rows()
        return sample_maps(self.mask_features.float(), points), self.targets.sample(rows, points[:, None])


class PredictedMasks(NamedTuple):
    """Masks of K layers over the same queries, not multiplied out.

    The mask of a query, (h, w) logits, is its embedding times the mask features. Training needs it at some points only.

    Attributes:
        embeddings: (K, B, Q, E).
        features: (B, E, h, w), shared by all layers and queries.
        samples: what matching compares; None where nothing is matched.
        first_layer: which layer of ``samples`` the first of these is, where each layer has points of its own.
    """

    embeddings: Tensor
    features: Tensor
    samples: Optional[MaskSamples] = None
    first_layer: int = 0

    def layers(self, chosen: slice) -> 'PredictedMasks':
        """Those of some neighbouring layers."""
        start = chosen.indices(len(self.embeddings))[0]
        return self._replace(embeddings=self.embeddings[chosen], first_layer=self.first_layer + start)

    def of_image(self, image: int) -> 'PredictedMasks':
        """Those of one image, as (K, 1, Q, E)."""
        one = slice(image, image + 1)
        samples = self.samples and self.samples.of_image(image)
        return self._replace(embeddings=self.embeddings[:, one], features=self.features[one], samples=samples)

    def float(self) -> 'PredictedMasks':
        """The same with embeddings in float32. The features stay as they are, and shared: who reads them converts what
        it reads, and each of these objects would hold a copy."""
        return self._replace(embeddings=self.embeddings.float())

    def detach(self) -> 'PredictedMasks':
        """The same without gradient."""
        return self._replace(embeddings=self.embeddings.detach(), features=self.features.detach())

    def blanked(self, blank: Tensor) -> 'PredictedMasks':
        """The same with zeros, which get no gradient, at the images where ``blank`` (B,) is True."""
        blank = blank[:, None, None]
        return self._replace(
            embeddings=self.embeddings.masked_fill(blank, 0), features=self.features.masked_fill(blank[..., None], 0)
        )
