"""What layers predict."""

from typing import Iterable, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .matches import Matches
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
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    prefixes: Tuple[str, ...]
    supervision: Supervision = Matched()
    class_agnostic: bool = False

    def float(self) -> 'Predictions':
        """These predictions in float32."""
        return self._replace(logits=self.logits.float(), boxes_cxcywh=self.boxes_cxcywh.float())

    def detach(self) -> 'Predictions':
        """These predictions without gradient."""
        return self._replace(logits=self.logits.detach(), boxes_cxcywh=self.boxes_cxcywh.detach())

    def of(self, layer: int, image: int) -> 'Predictions':
        """Those of one layer for one image, as (1, 1, Q, ...)."""
        one, single = slice(layer, layer + 1), slice(image, image + 1)
        return self._replace(
            logits=self.logits[one, single], boxes_cxcywh=self.boxes_cxcywh[one, single], prefixes=self.prefixes[one]
        )

    def blanked(self, images: Iterable[int]) -> 'Predictions':
        """These predictions with constants, which get no gradient, in place of all of some images."""
        blank = torch.zeros(self.logits.shape[1], dtype=torch.bool, device=self.logits.device)
        blank[list(images)] = True
        blank = blank[:, None, None]
        # Boxes of a tenth: boxes without area would be at a kink of the box losses.
        return self._replace(
            logits=self.logits.float().masked_fill(blank, BLANK_LOGIT),
            boxes_cxcywh=self.boxes_cxcywh.masked_fill(blank, 0.1),
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
