"""What to say about predictions and ground truth that are not finite."""

from typing import List, Sequence

import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from torch import Tensor

from mmdet_stable.structures import BatchTargets, Branches

from .match_costs import add_costs
from .pairwise import Pairwise

ADVICE = (
    'Look at the losses before this step: too high a learning rate and missing gradient clipping '
    '(optim_wrapper.clip_grad) are the usual causes. In mixed precision, see whether it happens without --amp, and use '
    'optim_wrapper.dtype="bfloat16", whose range is that of float32. Where only outputs overflow, now and then, '
    'model.train_cfg.assigner.on_invalid="skip" goes on without such images.'
)


def finite_sum(branches: Branches) -> Tensor:
    """(S, B) float32, finite where all predictions of an image are."""
    values = branches.logits, branches.boxes_cxcywh
    return sum(value.sum((2, 3), dtype=torch.float32) for value in values)


def describe_invalid(
    match_costs: Sequence[BaseMatchCost], branches: Branches, targets: BatchTargets, branch: int, image: int
) -> str:
    """Names image, branch, the terms of the cost, and where their values come from."""
    one = Branches(branches.logits[branch, image][None, None], branches.boxes_cxcywh[branch, image][None, None], ())
    pairwise = Pairwise(one, image_targets(targets.of(branches), image))
    terms = [type(cost).__name__ for cost in match_costs if not cost_is_finite(cost, pairwise)]
    return (
        f'{targets.img_names[image]}: {" and ".join(sources(one, pairwise.targets))} are not finite in branch '
        f'"{branches.prefixes[branch]}loss" (terms of the matching cost: {", ".join(terms) or "none"}).'
    )


def image_targets(targets: BatchTargets, image: int) -> BatchTargets:
    """The targets of one image, without padding."""
    num = targets.num_gts[image]
    return BatchTargets(
        *(value[image : image + 1, :num] for value in targets[:4]),
        targets.whwh[image : image + 1],
        (num,),
        (targets.img_shapes[image],),
        (targets.img_names[image],),
    )


def cost_is_finite(cost: BaseMatchCost, pairwise: Pairwise) -> bool:
    """Whether one term is finite for all pairs of an image."""
    total = torch.zeros_like(pairwise.logits)
    add_costs([cost], pairwise, total)
    return bool(total.isfinite().all())


def sources(one: Branches, targets: BatchTargets) -> List[str]:
    """What holds the first values that are not finite."""
    found = {
        'boxes of the ground truth': targets.boxes_xyxy,
        'predicted logits': one.logits,
        'predicted boxes': one.boxes_cxcywh,
    }
    return [name for name, values in found.items() if not values.isfinite().all()] or ['matching costs']
