"""The plan of a training step: what every query of the decoder is."""

from typing import Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .matches import Matches
from .predicted_masks import PredictedMasks
from .predictions import Predictions, Supervised
from .supervision import DenoisingLayout, Matched, Supervision
from .targets import BatchTargets


class BatchAssigner(Protocol):
    """What finds the matches of a batch: ``StableHungarianAssigner``."""

    def assign_batch(self, groups: Sequence[Predictions], targets: BatchTargets) -> List[Matches]: ...


class Segment(NamedTuple):
    """Queries that lie side by side and learn in the same way.

    Attributes:
        prefix: of their loss keys, after that of the layer: ``'dn_'``, ``''``, ``'o2m_'``.
        size: how many queries of each image.
        supervision: how they learn which ground truth they answer for.
    """

    prefix: str
    size: int
    supervision: Supervision


class QueryPlan(NamedTuple):
    """What every query of the decoder is, in the order in which they lie, and the ground truth they learn from.

    The one place that knows the order of queries: it says who sees whom, splits what the decoder predicts, and says
    which loss each part gets::

        plan = QueryPlan((Segment('dn_', 200, layout), Segment('', 900, Matched())), targets)
        states = decoder(queries, self_attn_mask=plan.attention_mask())
        parts = plan.split(*head(states))
        losses = set_loss(plan.supervise(assigner, parts), plan.targets)

    Attributes:
        segments: in order; denoising queries, of which there is at most one segment, see all matching queries.
        targets: ground truth of the batch.
    """

    segments: Tuple[Segment, ...]
    targets: BatchTargets

    @classmethod
    def of_mmdet(cls, targets: BatchTargets, num_queries: int, dn_meta: Optional[Dict[str, int]] = None) -> 'QueryPlan':
        """The plan of one of mmdet's own detectors: its ``num_queries`` are denoising queries, if ``dn_meta`` says so,
        and matching queries behind them."""
        if not dn_meta:
            return cls((Segment('', num_queries, Matched()),), targets)
        layout = DenoisingLayout.of_mmdet(dn_meta, targets.num_gts)
        matching = Segment('', num_queries - layout.num_queries, Matched())
        return cls((Segment('dn_', layout.num_queries, layout), matching), targets)

    @property
    def dn_meta(self) -> Dict[str, int]:
        """What mmdet's ``DINOHead`` takes to know of denoising queries."""
        layouts = [each.supervision for each in self.segments if isinstance(each.supervision, DenoisingLayout)]
        return {
            'num_denoising_queries': sum(layout.num_queries for layout in layouts),
            'num_denoising_groups': sum(layout.num_groups for layout in layouts),
        }

    @property
    def sizes(self) -> List[int]:
        """Queries of each segment."""
        return [segment.size for segment in self.segments]

    def attention_mask(self) -> Optional[Tensor]:
        """Who must not see whom in the decoder's self-attention.

        Segments of matching queries see themselves only. Denoising queries see their own group and all matching
        queries; matching queries see no denoising query, as these hold ground truth. Nobody sees a denoising query
        without ground truth, where these are left out.

        Returns:
            (Q, Q) bool, or (B, 1, Q, Q) where it differs between images; True forbids the query of the row to see that
            of the column. None where everybody sees everybody.

        Source: arXiv:2203.01305 Sec. 4.4; arXiv:2207.13080 Sec. 3.2.
        """
        if len(self.segments) == 1:
            return None
        device = self.targets.whwh.device
        communities, denoising = [], []  # queries of a community see each other
        hide_denoising = isolate_groups = True
        for segment in self.segments:
            layout = segment.supervision
            num_groups = 1
            if isinstance(layout, DenoisingLayout):
                num_groups = layout.num_groups
                hide_denoising, isolate_groups = layout.hide_denoising, layout.isolate_groups
            for _ in range(num_groups):
                communities.append(segment.size // num_groups)
                denoising.append(isinstance(layout, DenoisingLayout))
        sizes = torch.tensor(communities)
        community = torch.arange(len(sizes)).repeat_interleave(sizes).to(device, non_blocking=True)
        is_denoising = torch.tensor(denoising).repeat_interleave(sizes).to(device, non_blocking=True)
        row, column = is_denoising[:, None], is_denoising
        forbidden = (community[:, None] != community) & ~(row & ~column)
        if not hide_denoising:
            forbidden = forbidden & ~(~row & column)
        if not isolate_groups:
            forbidden = forbidden & ~(row & column)
        hidden = self._hidden(device)
        return forbidden if hidden is None else (forbidden | hidden[:, None])[:, None]

    def _hidden(self, device: torch.device) -> Optional[Tensor]:
        """(B, Q) bool; True for denoising queries that nobody may see. They see matching queries themselves, so that no
        row of the softmax is empty."""
        start = 0
        for _, size, layout in self.segments:
            if isinstance(layout, DenoisingLayout) and layout.leaves_out:
                return pad(~layout.shown(device), (start, sum(self.sizes) - start - size))
            start += size
        return None

    def split(self, logits: Tensor, boxes_cxcywh: Tensor, masks: Optional[PredictedMasks] = None) -> List[Predictions]:
        """What K decoder layers predict, segment by segment.

        Args:
            logits: (K, B, Q, C) of all queries.
            boxes_cxcywh: (K, B, Q, 4), normalised.
            masks: of the same layers and queries, where masks are predicted.
        """
        layers = [f'd{layer}.' for layer in range(len(logits) - 1)] + ['']
        # One split, whose gradient is one concatenation; slices would each be padded with zeros and added.
        parts = zip(self.segments, logits.split(self.sizes, 2), boxes_cxcywh.split(self.sizes, 2))
        predictions = [
            Predictions(part, boxes, tuple(layer + segment.prefix for layer in layers), segment.supervision)
            for segment, part, boxes in parts
        ]
        if masks is None:
            return predictions
        embeddings = masks.embeddings.split(self.sizes, 2)
        return [each._replace(masks=masks._replace(embeddings=part)) for each, part in zip(predictions, embeddings)]

    def supervise(self, assigner: BatchAssigner, parts: Sequence[Predictions]) -> List[Supervised]:
        """Find the matches of all predictions: one call of the assigner for all that are to be matched.

        Args:
            assigner: with ``assign_batch``.
            parts: of :meth:`split`, and any others, as the encoder's proposals.

        Returns:
            Matched predictions in the order of ``parts``, then denoising queries. An image whose predictions are not
            finite is blanked in all of them, if the assigner skips it.
        """
        known = [(part, part.supervision) for part in parts if isinstance(part.supervision, DenoisingLayout)]
        to_match = [part for part in parts if isinstance(part.supervision, Matched)]
        matches = assigner.assign_batch(to_match, self.targets)
        skipped = matches[0].skipped_images
        supervised = [Supervised(part, found) for part, found in zip(to_match, matches)]
        supervised += [_denoising(part, layout.without(skipped)) for part, layout in known]
        if not skipped:
            return supervised
        return [each._replace(predictions=each.predictions.blanked(skipped)) for each in supervised]


def _denoising(part: Predictions, layout: DenoisingLayout) -> Supervised:
    """Predictions of denoising queries, with the matches and the padding that their layout tells."""
    device = part.logits.device
    in_loss = layout.shown(device) if layout.leaves_out else None
    return Supervised(part, layout.matches(len(part.prefixes), device), is_denoising=True, in_loss=in_loss)
