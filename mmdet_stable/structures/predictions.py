"""What layers predict."""

from typing import Iterable, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .matches import Matches
from .predicted_masks import PredictedMasks
from .supervision import Matched, Supervision

BLANK_LOGIT = -20.0  # of a query that is in no loss: the class losses there vanish


class Predictions(NamedTuple):
    """Predictions of K layers over the same queries.

    Attributes:
        logits: (K, B, Q, C) raw class scores.
        boxes_cxcywh: (K, B, Q, 4), normalised to [0, 1].
        prefixes: K prefixes of the loss keys, e.g. ``'d0.'``, ``''``, ``'enc_'``, ``'d0.dn_'``.
        supervision: how these queries learn which ground truth they answer for.
        class_agnostic: whether every ground truth counts as class 0, as for the encoder of a two-stage Deformable-DETR.
        masks: of the same layers and queries; None where only boxes are predicted.
        plain_targets: whether no position supervises the scores of matched queries, as their content cannot know it.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    prefixes: Tuple[str, ...]
    supervision: Supervision = Matched()
    class_agnostic: bool = False
    masks: Optional[PredictedMasks] = None
    plain_targets: bool = False

    def float(self) -> 'Predictions':
        """These predictions in float32, but for mask features; see :meth:`PredictedMasks.float`."""
        masks = self.masks and self.masks.float()
        return self._replace(logits=self.logits.float(), boxes_cxcywh=self.boxes_cxcywh.float(), masks=masks)

    def detach(self) -> 'Predictions':
        """These predictions without gradient."""
        masks = self.masks and self.masks.detach()
        return self._replace(logits=self.logits.detach(), boxes_cxcywh=self.boxes_cxcywh.detach(), masks=masks)

    def layers(self, chosen: slice) -> 'Predictions':
        """The predictions of some neighbouring layers."""
        return self._replace(
            logits=self.logits[chosen],
            boxes_cxcywh=self.boxes_cxcywh[chosen],
            prefixes=self.prefixes[chosen],
            masks=self.masks and self.masks.layers(chosen),
        )

    def of(self, layer: int, image: int) -> 'Predictions':
        """Those of one layer for one image, as (1, 1, Q, ...)."""
        one, single = self.layers(slice(layer, layer + 1)), slice(image, image + 1)
        return one._replace(
            logits=one.logits[:, single],
            boxes_cxcywh=one.boxes_cxcywh[:, single],
            masks=one.masks and one.masks.of_image(image),
        )

    def blanked(self, images: Iterable[int]) -> 'Predictions':
        """These predictions with constants, which get no gradient, in place of all of some images."""
        blank = torch.zeros(self.logits.shape[1], dtype=torch.bool, device=self.logits.device)
        blank[list(images)] = True
        masks = self.masks and self.masks.blanked(blank)
        blank = blank[:, None, None]
        # Boxes of a tenth: boxes without area would be at a kink of the box losses.
        return self._replace(
            logits=self.logits.float().masked_fill(blank, BLANK_LOGIT),
            boxes_cxcywh=self.boxes_cxcywh.masked_fill(blank, 0.1),
            masks=masks,
        )


class Supervised(NamedTuple):
    """Predictions with their matches: what the set loss takes.

    Attributes:
        predictions: of K layers.
        matches: their pairs.
        is_denoising: whether the queries are noised ground truths, which may have a class loss of their own.
        in_loss: (B, Q) bool; queries at which it is False get no class loss. None where all do.
    """

    predictions: Predictions
    matches: Matches
    is_denoising: bool = False
    in_loss: Optional[Tensor] = None
