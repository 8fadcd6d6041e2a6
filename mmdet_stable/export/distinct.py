"""What the NMS inside of DDQ-DETR is asked and answers, recorded while a detector runs; or its answers are given."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from mmdet_stable.models.layers import DistinctSelection, distinct_boxes

INF = float('inf')


class Asked(NamedTuple):
    """What NMS was asked; see :func:`mmdet_stable.models.layers.distinct_boxes`."""

    boxes_xyxy: Tensor
    logits: Tensor
    candidates: Tensor
    threshold: float


class DistinctQueries:
    """Chooses distinct queries, or the given ones, and remembers what it was asked and has answered.

    Its first answer are the tokens of the encoder from which Q queries start, and the L - 1 others the queries that
    take part in NMS's choice before each further layer of the decoder.

    Args:
        choose: how it chooses.
        given: (B, L, Q) int64, the answers of a file, -1 where there are fewer; None for no file.
        boxes: (B, N + (L - 1) * Q, 4), what the file chose among, one choice behind the other.
    """

    def __init__(
        self,
        choose: DistinctSelection = distinct_boxes,
        given: Optional[Tensor] = None,
        boxes: Optional[Tensor] = None,
    ) -> None:
        self.choose = choose
        self.given = given
        self.boxes = boxes
        self.asked: List[Asked] = []
        self.chosen: List[Tensor] = []

    def __call__(
        self, boxes_xyxy: Tensor, logits: Tensor, candidates: Tensor, number: int, nms_cfg: Mapping[str, Any]
    ) -> Tensor:
        if self.given is None:
            chosen = self.choose(boxes_xyxy, logits, candidates, number, nms_cfg)
        else:
            chosen = self.given[:, len(self.chosen)]
        self.asked.append(Asked(boxes_xyxy, logits, candidates, nms_cfg['iou_threshold']))
        self.chosen.append(chosen)
        return chosen

    def for_checks(self) -> Dict[str, Tensor]:
        """What a file hands over: ``distinct`` and ``proposals``, which are ``given`` and ``boxes`` above; nothing of
        detectors without such a choice."""
        if not self.asked:
            return {}
        return dict(
            distinct=torch.stack(self.chosen, 1), proposals=torch.cat([asked.boxes_xyxy for asked in self.asked], 1)
        )

    def differences(self) -> Tuple[float, float]:
        """How far any edge of the file's boxes lies from the detector's, in shares of the image; and the largest
        :func:`shortfall` of its choices among them, relative to the largest logit."""
        moved = short = 0.0
        start = 0
        for asked, chosen in zip(self.asked, self.chosen):
            assert self.boxes is not None
            boxes = self.boxes[:, start : start + asked.boxes_xyxy.shape[1]]
            start += boxes.shape[1]
            moved = max(moved, (boxes - asked.boxes_xyxy).abs().max().item())
            of_images = zip(boxes, asked.logits, asked.candidates, chosen)
            largest = asked.logits.abs().max().item()
            short = max([short, *(shortfall(*of_image, asked.threshold) / largest for of_image in of_images)])
        return moved, short


def shortfall(boxes: Tensor, scores: Tensor, candidates: Tensor, chosen: Tensor, threshold: float) -> float:
    """How far greedy NMS is from having chosen these: by how much scores would have to change for that.

    Right are as many candidates as asked for, best first, that do not overlap each other. Each other candidate overlaps
    a better one of them, or is worse than all of them, where there are as many as asked for.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        candidates: (N,) bool, which boxes may be chosen.
        chosen: (Q,) int64, -1 behind the last one.
        threshold: IoU from which boxes overlap.

    Returns:
        0 for a right choice; inf for one that no scores explain.
    """
    kept = chosen[chosen >= 0]
    is_kept = torch.zeros_like(candidates)
    is_kept[kept] = True
    if (chosen[: len(kept)] < 0).any() or is_kept.sum() < len(kept) or (is_kept & ~candidates).any():
        return INF
    overlaps = bbox_overlaps(boxes, boxes[kept], eps=1e-12)
    if (overlaps[kept] > threshold + 1e-4).fill_diagonal_(False).any():
        return INF
    worse_by = (scores[:, None] - scores[kept]).masked_fill(overlaps <= threshold - 1e-4, INF)
    missed = torch.cat([worse_by, scores.new_full((len(scores), 1), INF)], 1).amin(1)
    if len(kept) == len(chosen):
        missed = missed.minimum(scores - scores[kept].amin())
    missed = missed[candidates & ~is_kept]
    disorder = scores[kept].diff()
    return max([0.0, *missed.tolist(), *disorder.tolist()])
