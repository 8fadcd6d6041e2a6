"""Hungarian matching of all layers and images at once, with one copy to the host."""

import logging
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
from mmdet_stable.structures import BatchTargets, Matched, Matches, Predictions
from mmdet_stable.utils import HostBuffer, cache_sized_parts, own_cpus

from .invalid import ADVICE, describe_invalid, finite_sum
from .match_costs import batched_cost, compares_masks, has_batched_form
from .pairwise import Pairwise

WORTH_THREADS = 2**19  # costs; fewer are solved before a thread pool has started
MAX_LOST_BATCHES = 10  # skipped whole, after which nothing is being learned any more


@TASK_UTILS.register_module()
class StableHungarianAssigner(HungarianAssigner):
    """Hungarian matching of one image, as mmdet's ``HungarianAssigner``, or of a whole batch at once.

    ``assign`` has mmdet's interface and may replace ``HungarianAssigner`` in any config. ``assign_batch`` computes the
    costs of all layers and images on the device in float32, copies them to the host once, solves there, and copies
    the pairs back once.

    Args:
        match_costs: configs of the costs to be summed, e.g. :class:`PositionModulatedFocalCost`, mmdet's
            ``BBoxL1Cost`` and ``IoUCost`` and, where the head predicts masks, ``CrossEntropyLossCost`` and
            ``DiceCost``. Other costs of boxes, scores and masks work too, computed image by image; those that look
            at more only in ``assign``.
        on_invalid: what to do about an image with predictions that are not finite: ``'error'``, or ``'skip'``, which
            matches none of its boxes in this step, warns, and counts it, in ``num_skipped`` and in the log as
            ``skipped_images``.

    Raises:
        ValueError: for an unknown ``on_invalid`` or a negative weight; while matching, if predictions are not finite
            and ``on_invalid`` is ``'error'``, if ground truth is not, or if every image of 10 batches in a row was
            skipped. The message names image, layer and term.

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
    def assign_batch(self, groups: Sequence[Predictions], targets: BatchTargets) -> List[Matches]:
        """Match every layer and image on its own::

            for each group:                                   # e.g. decoder layers, encoder
                costs = sum(batched_cost(cost, pairs))        # (K, B, G, Q), on the device
            copy all costs to the host together               # the one wait for the device
            for each group, layer and image:
                linear_sum_assignment(costs of the image's ground truths)
            copy all pairs back together

        Args:
            groups: predictions to be matched; the layers of one group share their number of queries.
            targets: padded ground truth of the B images.

        Returns:
            One ``Matches`` per group; each layer and image contributes min(num_gts * copies, Q) pairs, ordered by
            layer, image and, within each copy, ground truth. A skipped image contributes none.
        """
        device = groups[0].logits.device
        most = targets.labels.shape[1]
        shapes = [(*group.logits.shape[:2], most, group.logits.shape[2]) for group in groups]
        buffer = HostBuffer([*shapes, *(shape[:2] for shape in shapes)], device)
        with torch.autocast(device.type, enabled=False):
            for group, part, part_of_sums in zip(groups, buffer.parts, buffer.parts[len(groups) :]):
                self._add_costs(group, targets, part)
                part_of_sums.copy_(finite_sum(group))
        on_host = buffer.to_host()
        costs, sums = on_host[: len(groups)], on_host[len(groups) :]
        skipped = self._checked(groups, targets, costs, sums)
        num_gts = [0 if image in skipped else num for image, num in enumerate(targets.num_gts)]
        copies = [group.supervision.copies for group in groups if isinstance(group.supervision, Matched)]
        pairs = [self._solve(each, num_gts, num_copies) for each, num_copies in zip(costs, copies)]
        inds = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device, non_blocking=True)
        parts = inds.split([found.shape[1] for found in pairs], dim=1)
        per_image = [
            tuple(min(num * num_copies, group.logits.shape[2]) for num in num_gts)
            for group, num_copies in zip(groups, copies)
        ]
        return [
            Matches(
                part[0],
                part[1],
                part[2],
                part[3],
                len(group.logits),
                skipped_images=skipped,
                pairs_per_image=numbers,
            )
            for group, part, numbers in zip(groups, parts, per_image)
        ]

    def assign(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: Optional[dict] = None, **kwargs
    ) -> AssignResult:
        """Match one image, as mmdet's heads ask for it.

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
        of_boxes = all(has_batched_form(cost) and not compares_masks(cost) for cost in self.match_costs)
        if not of_boxes or 'bboxes' not in pred_instances:
            return super().assign(pred_instances, gt_instances, img_meta, **kwargs)
        targets = BatchTargets.from_instances([gt_instances], [img_meta or {}])
        boxes_cxcywh = bbox_xyxy_to_cxcywh(pred_instances.bboxes.float() / targets.whwh)
        predictions = Predictions(pred_instances.scores[None, None], boxes_cxcywh[None, None], ('',))
        matches = self.assign_batch([predictions], targets)[0]
        gt_inds = targets.labels.new_zeros(len(boxes_cxcywh))
        labels = torch.full_like(gt_inds, -1)
        gt_inds[matches.query_inds] = matches.gt_inds + 1
        labels[matches.query_inds] = gt_instances.labels[matches.gt_inds]
        return AssignResult(len(gt_instances), gt_inds, max_overlaps=None, labels=labels)

    def _add_costs(self, predictions: Predictions, targets: BatchTargets, total: Tensor) -> None:
        """Add the weighted costs to ``total`` (K, B, G, Q); values in padded ground truths are meaningless."""
        if predictions.class_agnostic:
            targets = targets.class_agnostic()
        layers = cache_sized_parts(total.shape, total.device)
        for start, part in zip(range(0, len(total), layers), total.split(layers)):
            pairwise = Pairwise(predictions.layers(slice(start, start + layers)), targets)
            for cost in self.match_costs:
                part.add_(batched_cost(cost, pairwise))

    def _checked(
        self,
        groups: Sequence[Predictions],
        targets: BatchTargets,
        costs: Sequence[np.ndarray],
        sums: Sequence[np.ndarray],
    ) -> FrozenSet[int]:
        """The images to skip, for the costs (K, B, G, Q) and :func:`finite_sum` (K, B) of each group."""
        skipped = set()
        for predictions, group_costs, group_sums in zip(groups, costs, sums):
            for image, num in enumerate(targets.num_gts):
                finite = np.isfinite(group_sums[:, image]) & np.isfinite(group_costs[:, image, :num]).all((1, 2))
                if finite.all() or image in skipped:
                    continue
                problem = describe_invalid(self.match_costs, predictions, targets, int(finite.argmin()), image)
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
    def _solve(costs: np.ndarray, num_gts: Sequence[int], copies: int) -> np.ndarray:
        """Solve K x B problems of (G, Q), in which each ground truth stands ``copies`` times.

        Returns:
            (4, M) int64 rows: layer, image, query, ground truth.
        """
        problems = [(layer, image) for layer in range(len(costs)) for image in range(len(num_gts))]

        def solve(problem: Tuple[int, int]) -> np.ndarray:
            layer, image = problem
            num = num_gts[image]
            rows, query_inds = linear_sum_assignment(np.tile(costs[layer, image, :num], (copies, 1)))
            gt_inds = rows % max(num, 1)
            return np.stack([np.full_like(gt_inds, layer), np.full_like(gt_inds, image), query_inds, gt_inds])

        if costs.size < WORTH_THREADS:
            return np.concatenate(list(map(solve, problems)), axis=1)
        # scipy releases the interpreter lock while it solves.
        with ThreadPoolExecutor(own_cpus()) as pool:
            return np.concatenate(list(pool.map(solve, problems)), axis=1)
