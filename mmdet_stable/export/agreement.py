"""Does a quantised file see what the detector sees?

Eight bits move every number a little, so that ranks change, and queries start from other tokens. What must stay are the
detections that somebody would look at: for each confident one of the detector, the file must have one of the same class
at the same place, and the other way round.
"""

from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from .distinct import DistinctQueries
from .graph import ExportableDetector
from .parity import reference
from .recorders import StartingBoxes, TokenSelection

CONFIDENT = 0.5  # of the best score on all pictures
SAME_PLACE = 0.5  # IoU


class Agreement(NamedTuple):
    """How far a file agrees with its detector, or has to.

    Attributes:
        common: share of the confident detections of either that the other has, too; the smaller of both shares.
        iou: mean overlap of common detections.
        scores: mean difference of their scores.
        masks: mean share of the pixels of their masks that lie on the other side; 0 for detectors of boxes.
        ap: difference of AP, of 1; measured apart.
    """

    common: float
    iou: float
    scores: float
    masks: float
    ap: float = 0.0

    def line(self) -> str:
        masks = f', {self.masks:.4f} of their pixels differ' if self.masks else ''
        return f'{self.common:.3f} in common, overlapping by {self.iou:.3f}; scores differ by {self.scores:.3f}{masks}'

    def problems(self, allowed: 'Agreement') -> List[str]:
        """What is worse than ``allowed``."""
        found = [
            f'{kind} {getattr(self, kind):.3f}, at least {getattr(allowed, kind)} is asked for'
            for kind in ('common', 'iou')
            if not getattr(self, kind) >= getattr(allowed, kind)
        ]
        return found + [
            f'{kind} {getattr(self, kind):.3f}, allowed are {getattr(allowed, kind)}'
            for kind in ('scores', 'masks')
            if not getattr(self, kind) <= getattr(allowed, kind)
        ]


INT8 = Agreement(common=0.9, iou=0.85, scores=0.05, masks=0.02, ap=0.01)


class Pair(NamedTuple):
    """Detections of one picture, by the detector and by the file; N each."""

    expected: Dict[str, Tensor]
    found: Dict[str, Tensor]


def pairs_of(
    module: ExportableDetector, detector: Any, images: Tensor, sizes: Tensor, outputs: Dict[str, np.ndarray]
) -> List[Pair]:
    """The outputs of a file for a batch, beside the detector's own, which chooses its tokens itself."""
    found = {name: torch.from_numpy(values) for name, values in outputs.items()}
    last = reference(detector, images, sizes, TokenSelection(), StartingBoxes(), DistinctQueries())
    expected = module.best(last, module.whwh_of(images, sizes)).named()
    kinds = ('boxes', 'scores', 'labels', *(['masks'] if module.has_masks else []))
    return [
        Pair(*({kind: values[kind][image] for kind in kinds} for values in (expected, found)))
        for image in range(len(images))
    ]


def agreement(pairs: List[Pair]) -> Tuple[Agreement, int]:
    """How far both agree on all pictures, and how many confident detections the detector has there."""
    confident = CONFIDENT * max(pair.expected['scores'].max().item() for pair in pairs)
    forth = [_common(pair.expected, pair.found, confident) for pair in pairs]
    back = [_common(pair.found, pair.expected, confident) for pair in pairs]
    shares = [torch.cat([common.has_partner for common in way]).float().mean().item() for way in (forth, back)]
    means = [
        torch.cat([getattr(common, kind) for common in forth]).mean().item() for kind in ('iou', 'scores', 'masks')
    ]
    return Agreement(min(shares), *means), sum(len(common.has_partner) for common in forth)


class _Common(NamedTuple):
    """Which M of some detections have a partner, and by how much those that have one differ from it."""

    has_partner: Tensor
    iou: Tensor
    scores: Tensor
    masks: Tensor


def _common(ones: Dict[str, Tensor], others: Dict[str, Tensor], confident: float) -> _Common:
    """Partners of the confident of ``ones`` among ``others``, whose scores may be half as high; each is the best
    overlap of the same class."""
    asked = ones['scores'] >= confident
    known = others['scores'] >= 0.5 * confident
    boxes, other_boxes = ones['boxes'][asked], others['boxes'][known]
    same = ones['labels'][asked][:, None] == others['labels'][known]
    ious = torch.cat([bbox_overlaps(boxes, other_boxes) * same, boxes.new_zeros(len(boxes), 1)], 1)
    best, partner = ious.max(1)
    has_partner = best >= SAME_PLACE
    partner = partner[has_partner]
    scores = (ones['scores'][asked][has_partner] - others['scores'][known][partner]).abs()
    masks = torch.zeros_like(scores)
    if 'masks' in ones:
        inside, other_inside = ones['masks'][asked][has_partner] > 0, others['masks'][known][partner] > 0
        masks = (inside != other_inside).float().mean((1, 2))
    return _Common(has_partner, best[has_partner], scores, masks)
