"""What to say about predictions and ground truth that are not finite."""

from typing import List, Sequence

import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from torch import Tensor

from mmdet_stable.structures import BatchTargets, Predictions

from .match_costs import batched_cost
from .pairwise import Pairwise

ADVICE = (
    'Look at the losses before this step: too high a learning rate and missing gradient clipping '
    '(optim_wrapper.clip_grad) are the usual causes. In mixed precision, see whether it happens without --amp, and use '
    'optim_wrapper.dtype="bfloat16", whose range is that of float32. Where only outputs overflow, now and then, '
    'model.train_cfg.assigner.on_invalid="skip" goes on without such images.'
)


def finite_sum(predictions: Predictions) -> Tensor:
    """(K, B) float32, finite where all predictions of an image are."""
    logits, boxes, masks = predictions.logits, predictions.boxes_cxcywh, predictions.masks
    total = logits.sum((2, 3), dtype=torch.float32) + boxes.sum((2, 3), dtype=torch.float32)
    if masks is not None:
        total = total + masks.embeddings.sum((2, 3), dtype=torch.float32)
        total = total + masks.features.sum((1, 2, 3), dtype=torch.float32)
    return total


def describe_invalid(
    match_costs: Sequence[BaseMatchCost], predictions: Predictions, targets: BatchTargets, layer: int, image: int
) -> str:
    """Names image, layer, the terms of the cost, and where their values come from."""
    if predictions.class_agnostic:
        targets = targets.class_agnostic()
    pairwise = Pairwise(predictions.of(layer, image), targets.of_image(image))
    terms = [type(cost).__name__ for cost in match_costs if not cost_is_finite(cost, pairwise)]
    return (
        f'{targets.img_names[image]}: {" and ".join(sources(pairwise))} are not finite in layer '
        f'"{predictions.prefixes[layer]}loss" (terms of the matching cost: {", ".join(terms) or "none"}).'
    )


def cost_is_finite(cost: BaseMatchCost, pairwise: Pairwise) -> bool:
    """Whether one term is finite for all pairs of an image."""
    return bool(batched_cost(cost, pairwise).isfinite().all())


def sources(pairwise: Pairwise) -> List[str]:
    """What holds the first values that are not finite."""
    found = {
        'boxes of the ground truth': pairwise.targets.boxes_xyxy,
        'predicted logits': pairwise.predictions.logits,
        'predicted boxes': pairwise.predictions.boxes_cxcywh,
    }
    masks = pairwise.predictions.masks
    if masks is not None:
        found.update({'mask embeddings': masks.embeddings, 'mask features': masks.features})
    return [name for name, values in found.items() if not values.isfinite().all()] or ['matching costs']
