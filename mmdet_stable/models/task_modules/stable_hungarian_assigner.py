"""Hungarian matching of all layers and images at once, with one copy to the host."""

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import FrozenSet, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.models.task_modules.assigners import AssignResult, HungarianAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmdet.utils import ConfigType
from mmengine.logging import MessageHub, print_log
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmdet_stable.models.settings import check_weights
from mmdet_stable.structures import BatchTargets, Branches, Matches
from mmdet_stable.utils import cache_sized_parts

from .invalid import ADVICE, describe_invalid, finite_sum
from .match_costs import add_costs, has_batched_form
from .pairwise import Pairwise

WORTH_THREADS = 2**19  # costs; fewer are solved before a thread pool has started
MAX_LOST_BATCHES = 10  # skipped whole, after which nothing is being learned any more


@TASK_UTILS.register_module()
class StableHungarianAssigner(HungarianAssigner):
    """mmdet's ``HungarianAssigner`` that can also match whole batches.

    ``assign`` has mmdet's interface and may replace ``HungarianAssigner`` in any config. ``assign_batch`` computes the
    costs of all branches and images on the device in float32, copies them to the host once, solves there, and copies
    the pairs back once.

    Args:
        match_costs: configs of the costs to be summed, e.g. :class:`PositionModulatedFocalCost`, mmdet's
            ``BBoxL1Cost`` and ``IoUCost``. Other costs of boxes and scores work too, computed image by image; those
            that look at more, as masks, only in ``assign``.
        on_invalid: what to do about an image with predictions that are not finite: ``'error'``, or ``'skip'``, which
            matches none of its boxes in this step, warns, and counts it, in ``num_skipped`` and in the log as
            ``skipped_images``.

    Raises:
        ValueError: for an unknown ``on_invalid`` or a negative weight; while matching, if predictions are not finite
            and ``on_invalid`` is ``'error'``, if ground truth is not, or if every image of 10 batches in a row was
            skipped. The message names image, branch and term.

    Source: arXiv:2304.04742 Eq. 4; the assignment itself is DETR's (arXiv:2005.12872 Eq. 1).
    """

    def __init__(self, match_costs: ConfigType, on_invalid: str = 'error') -> None:
        super().__init__(match_costs=match_costs)
        weights = [(f'{type(cost).__name__}.weight', getattr(cost, 'weight', None)) for cost in self.match_costs]
        check_weights(type(self).__name__, weights)
        if on_invalid not in ('error', 'skip'):
            raise ValueError(f"on_invalid={on_invalid!r}: known are 'error' and 'skip'")
        self.on_invalid = on_invalid
        self.num_skipped = 0
        self._num_lost_batches = 0

    @torch.no_grad()
    def assign_batch(self, groups: Sequence[Branches], targets: BatchTargets) -> List[Matches]:
        """Match every branch and image on its own.

        Args:
            groups: sets of branches; branches of one set share their number of queries.
            targets: padded ground truth of the B images.

        Returns:
            One ``Matches`` per group; each branch and image contributes min(num_gts * num_copies, Q) pairs, ordered by
            branch, image and, within each copy, ground truth. A skipped image contributes none.
        """
        device = groups[0].logits.device
        shapes = [
            (*branches.logits.shape[:2], targets.labels.shape[1], branches.logits.shape[2]) for branches in groups
        ]
        sizes = [math.prod(shape) for shape in shapes]
        sizes += [math.prod(shape[:2]) for shape in shapes]  # of finite_sum
        flat = torch.zeros(sum(sizes), device=device)
        parts = flat.split(sizes)
        with torch.autocast(device.type, enabled=False):
            for branches, shape, costs, sums in zip(groups, shapes, parts, parts[len(groups) :]):
                self._add_costs(branches, targets, costs.view(shape))
                sums.view(shape[:2]).copy_(finite_sum(branches))
        parts = flat.cpu().split(sizes)  # the one wait for the device
        costs = [part.view(shape).numpy() for part, shape in zip(parts, shapes)]
        sums = [part.view(shape[:2]).numpy() for part, shape in zip(parts[len(groups) :], shapes)]
        skipped = self._checked(groups, targets, costs, sums)
        num_gts = [0 if image in skipped else num for image, num in enumerate(targets.num_gts)]
        pairs = [self._solve(group_costs, num_gts, branches.num_copies) for group_costs, branches in zip(costs, groups)]
        inds = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device, non_blocking=True)
        return [
            Matches(*group_inds, len(branches.logits), skipped)
            for branches, group_inds in zip(groups, inds.split([group.shape[1] for group in pairs], dim=1))
        ]

    def assign(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: Optional[dict] = None, **kwargs
    ) -> AssignResult:
        """mmdet's interface: one image.

        Args:
            pred_instances: ``scores`` (Q, C) logits and ``bboxes`` (Q, 4) absolute xyxy.
            gt_instances: ``labels`` (G,) and ``bboxes`` (G, 4) absolute xyxy.
            img_meta: needs ``img_shape``.

        Returns:
            AssignResult: ``gt_inds`` (Q,): 0 for background, i + 1 for ground truth i; ``labels`` (Q,): -1 for
                background.

        Raises:
            ValueError: with ``on_invalid='skip'``, as mmdet's heads, which call this, would not leave the image out.
        """
        if self.on_invalid == 'skip':
            raise ValueError(
                'assigner.on_invalid="skip" needs a head of mmdet_stable, which leaves the image out of its losses, '
                'e.g. bbox_head.type="StableDINOHead"; with this head, set it to "error"'
            )
        if not all(map(has_batched_form, self.match_costs)):
            return super().assign(pred_instances, gt_instances, img_meta, **kwargs)
        targets = BatchTargets.from_instances([gt_instances], [img_meta])
        boxes_cxcywh = bbox_xyxy_to_cxcywh(pred_instances.bboxes.float() / targets.whwh)
        branches = Branches(pred_instances.scores[None, None], boxes_cxcywh[None, None], ('',))
        (matches,) = self.assign_batch([branches], targets)
        gt_inds = targets.labels.new_zeros(len(boxes_cxcywh))
        labels = torch.full_like(gt_inds, -1)
        gt_inds[matches.query_inds] = matches.gt_inds + 1
        labels[matches.query_inds] = gt_instances.labels[matches.gt_inds]
        return AssignResult(len(gt_instances), gt_inds, max_overlaps=None, labels=labels)

    def _add_costs(self, branches: Branches, targets: BatchTargets, total: Tensor) -> None:
        """Add the weighted costs to ``total`` (S, B, G, Q); values in padded ground truths are meaningless."""
        parts = cache_sized_parts(total.shape, total.device)
        targets = targets.of(branches)
        for logits, boxes, part in zip(
            branches.logits.split(parts), branches.boxes_cxcywh.split(parts), total.split(parts)
        ):
            add_costs(self.match_costs, Pairwise(Branches(logits, boxes, ()), targets), part)

    def _checked(
        self,
        groups: Sequence[Branches],
        targets: BatchTargets,
        costs: Sequence[np.ndarray],
        sums: Sequence[np.ndarray],
    ) -> FrozenSet[int]:
        """The images to skip, for the costs (S, B, G, Q) and :func:`finite_sum` (S, B) of each group."""
        skipped = set()
        for branches, group_costs, group_sums in zip(groups, costs, sums):
            for image, num in enumerate(targets.num_gts):
                finite = np.isfinite(group_sums[:, image]) & np.isfinite(group_costs[:, image, :num]).all((1, 2))
                if finite.all() or image in skipped:
                    continue
                problem = describe_invalid(self.match_costs, branches, targets, int(finite.argmin()), image)
                if self.on_invalid == 'error' or not targets.boxes_xyxy[image].isfinite().all():
                    raise ValueError(f'{problem} {ADVICE}')
                skipped.add(image)
                self.num_skipped += 1
                print_log(f'{problem} Skipped in this step, as {self.num_skipped} so far.', 'current', logging.WARNING)
        if self.on_invalid == 'skip':
            MessageHub.get_current_instance().update_scalar('train/skipped_images', float(len(skipped)))
            self._num_lost_batches = self._num_lost_batches + 1 if len(skipped) == len(targets.num_gts) else 0
            if self._num_lost_batches == MAX_LOST_BATCHES:
                raise ValueError(f'on_invalid="skip" has skipped all of {MAX_LOST_BATCHES} batches in a row. {ADVICE}')
        return frozenset(skipped)

    @staticmethod
    def _solve(costs: np.ndarray, num_gts: Sequence[int], num_copies: int) -> np.ndarray:
        """Solve S x B problems of (G, Q), in which each ground truth stands ``num_copies`` times.

        Returns:
            (4, M) int64 rows: branch, image, query, ground truth.
        """
        problems = [(branch, image) for branch in range(len(costs)) for image in range(len(num_gts))]

        def solve(problem: Tuple[int, int]) -> np.ndarray:
            branch, image = problem
            num = num_gts[image]
            copies, query_inds = linear_sum_assignment(np.tile(costs[branch, image, :num], (num_copies, 1)))
            gt_inds = copies % max(num, 1)
            return np.stack([np.full_like(gt_inds, branch), np.full_like(gt_inds, image), query_inds, gt_inds])

        if costs.size < WORTH_THREADS:
            return np.concatenate(list(map(solve, problems)), axis=1)
        # scipy releases the interpreter lock while it solves.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return np.concatenate(list(pool.map(solve, problems)), axis=1)
