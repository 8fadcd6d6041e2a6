"""The one set loss of this package: decoder layers, encoder and denoising queries all go through it."""

from typing import Dict, List, Sequence, Tuple, Union

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import is_distributed
from torch import Tensor

from mmdet_stable.structures import BatchTargets, Supervised

from .loss_terms import LossTerm, MatchedPairs


class SetLoss:
    """The losses of all layers, of all groups of queries, computed together.

    In other words::

        pairs = all matched pairs of all groups, with their boxes, IoU and so on
        for term in terms:  # e.g. class, L1, GIoU
            for group, sums in zip(groups, term(pairs)):  # a sum for each layer
                losses[prefix + term.name] = sums / positives * loss_weight

    Args:
        terms: what the loss consists of; see :class:`LossTerm` for what a term is.

    Source: arXiv:2005.12872 Sec. 3.1; terms name theirs.
    """

    def __init__(self, terms: Sequence[LossTerm]) -> None:
        self.terms = list(terms)

    def __call__(self, groups: Sequence[Supervised], targets: BatchTargets) -> Dict[str, Tensor]:
        """The weighted losses ``{prefix}{name}`` of every layer and term, in float32.

        They are divided by the positives of a layer: those of this process, or their mean over all processes, as the
        term wants; at least 1. The positives of denoising queries are those of one group, on average over all
        processes, times the groups of this process, as in the reference implementations.
        """
        with torch.autocast(targets.whwh.device.type, enabled=False):
            pairs = MatchedPairs(groups, targets)
            sums = [term(pairs) for term in self.terms]
            own, synced = self._avg_factors(pairs)
        losses: Dict[str, Tensor] = {}
        for index, (predictions, *_) in enumerate(pairs.groups):
            weight = predictions.supervision.loss_weight
            for term, term_sums in zip(self.terms, sums):
                group_sums = term_sums[index]
                if group_sums is None:
                    continue
                factors = {True: synced[index], False: own[index], None: 1}
                values = group_sums * weight / factors[term.sync_avg_factor]
                losses.update({prefix + term.name: value for prefix, value in zip(predictions.prefixes, values)})
        return losses

    @staticmethod
    def _avg_factors(pairs: MatchedPairs) -> Tuple[List[int], Sequence[Union[int, Tensor]]]:
        """Divisors for each group: this process's positives, and their mean over all processes."""
        matches = [group.matches for group in pairs.groups]
        own = [max(found.num_per_layer, 1) for found in matches]
        if not is_distributed():
            return own, own
        per_group = [found.num_per_layer / found.num_groups for found in matches]
        means = reduce_mean(pairs.targets.whwh.new_tensor(per_group)).clamp(min=1)
        return own, [mean * found.num_groups for mean, found in zip(means, matches)]
