"""Match costs of boxes where some classes have no meaningful ones."""

from typing import Optional

import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import TASK_UTILS
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData
from torch import Tensor

from .match_costs import batched_cost
from .pairwise import Pairwise


@TASK_UTILS.register_module()
class ThingsOnlyCost(BaseMatchCost):
    """A cost of boxes that tells queries apart for things only: stuff costs the same for all queries.

    Stuff, as sky or grass, fills the image, so that its box says little. Its cost is the mean of the image's things, or
    0 where there are none, so that the total keeps its scale.

    Args:
        cost: config of the cost, e.g. ``dict(type='BBoxL1Cost', box_format='xywh', weight=5.0)``.
        num_things: classes from this number on are stuff.

    Source: arXiv:2206.02777, "decoupled box prediction" (``panoptic_on`` of the released matcher).
    """

    def __init__(self, cost: ConfigType, num_things: int) -> None:
        super().__init__(weight=1.0)  # that of ``cost`` counts
        self.cost = TASK_UTILS.build(cost)
        self.num_things = num_things

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: Optional[dict] = None, **kwargs
    ) -> Tensor:
        """(Q, G) cost of one image; see ``cost`` for what it needs."""
        cost = self.cost(pred_instances, gt_instances, img_meta, **kwargs)
        labels = gt_instances.labels[None]
        return with_stuff_costs(cost.T[None, None], labels < self.num_things, torch.ones_like(labels).bool())[0, 0].T

    def batched(self, pairwise: Pairwise) -> Tensor:
        """(K, B, G, Q) cost of all layers and images."""
        targets = pairwise.targets
        costs = batched_cost(self.cost, pairwise)
        return with_stuff_costs(costs, targets.labels < self.num_things, targets.valid)


def with_stuff_costs(box_costs: Tensor, is_thing: Tensor, valid: Tensor) -> Tensor:
    """Box costs in which stuff, whose boxes mean little, costs the same for all queries.

    Args:
        box_costs: (K, B, G, Q), L1 or GIoU.
        is_thing: (B, G) bool; False for stuff.
        valid: (B, G) bool; False in padding.

    Returns:
        The same with the mean over all things of the image in the rows of stuff; 0 in images without things.
    """
    counted = (is_thing & valid)[..., None]
    total = box_costs.masked_fill(~counted, 0).sum((-2, -1), keepdim=True)
    number = counted.sum((-2, -1), keepdim=True) * box_costs.shape[-1]
    return torch.where(is_thing[..., None], box_costs, total / number.clamp(min=1))
