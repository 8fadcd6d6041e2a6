"""Hungarian matching of all layers and images at once, with one copy to the host."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.models.task_modules.assigners import AssignResult, HungarianAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmdet_stable.structures import BatchTargets, Branches, Matches
from mmdet_stable.utils import cache_sized_parts

from .match_costs import add_costs, has_batched_form
from .pairwise import Pairwise


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

    Raises:
        ValueError: while matching, if a cost is not finite; the message names image and branch.

    Source: arXiv:2304.04742 Eq. 4; the assignment itself is DETR's (arXiv:2005.12872 Eq. 1).
    """

    @torch.no_grad()
    def assign_batch(self, groups: Sequence[Branches], targets: BatchTargets) -> List[Matches]:
        """Match every branch and image on its own.

        Args:
            groups: sets of branches; branches of one set share their number of queries.
            targets: padded ground truth of the B images.

        Returns:
            One ``Matches`` per group; each branch and image contributes min(num_gts * num_copies, Q) pairs, ordered by
            branch, image and, within each copy, ground truth.
        """
        device = groups[0].logits.device
        shapes = [
            (*branches.logits.shape[:2], targets.labels.shape[1], branches.logits.shape[2]) for branches in groups
        ]
        sizes = [math.prod(shape) for shape in shapes]
        flat = torch.zeros(sum(sizes), device=device)
        with torch.autocast(device.type, enabled=False):
            for branches, shape, costs in zip(groups, shapes, flat.split(sizes)):
                self._add_costs(branches, targets, costs.view(shape))
        flat = flat.cpu()  # the one wait for the device
        pairs = [
            self._solve(costs.view(shape).numpy(), targets.num_gts, branches)
            for branches, shape, costs in zip(groups, shapes, flat.split(sizes))
        ]
        inds = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device, non_blocking=True)
        return [
            Matches(*group_inds, num_branches=len(branches.logits))
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
        """
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

    @staticmethod
    def _solve(costs: np.ndarray, num_gts: Sequence[int], branches: Branches) -> np.ndarray:
        """Solve S x B problems of (G, Q); returns (4, M) int64 rows: branch, image, query, ground truth."""
        problems = [(branch, image) for branch in range(len(costs)) for image in range(len(num_gts))]

        def solve(problem: Tuple[int, int]) -> np.ndarray:
            branch, image = problem
            prefix, num = branches.prefixes[branch], num_gts[image]
            cost = costs[branch, image, :num]
            if not np.isfinite(cost).all():
                raise ValueError(
                    f'matching cost of image {image} of the batch is not finite in branch '
                    f'"{prefix}loss": the predictions or the ground-truth boxes contain NaN or infinity. '
                    'Look at the losses before this step: too high a learning rate and missing gradient clipping are '
                    'the usual causes; in mixed precision, see whether it happens without --amp.'
                )
            copies, query_inds = linear_sum_assignment(np.tile(cost, (branches.num_copies, 1)))
            gt_inds = copies % max(num, 1)
            return np.stack([np.full_like(gt_inds, branch), np.full_like(gt_inds, image), query_inds, gt_inds])

        # scipy releases the interpreter lock while it solves.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return np.concatenate(list(pool.map(solve, problems)), axis=1)
