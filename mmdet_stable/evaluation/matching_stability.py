"""The unstable score: how often the match of a ground truth changes from layer to layer."""

import math
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import METRICS
from mmdet.utils import ConfigType
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmdet_stable.models.task_modules import PositionModulatedFocalCost, StableHungarianAssigner
from mmdet_stable.models.task_modules.match_costs import compares_masks

from .layer_predictions import LayerPredictions, predict_layers

NO_QUERY = -1


class LayerMatches(NamedTuple):
    """Which query each of the G ground truths of one image is matched to after each of L layers.

    Attributes:
        layers: L numbers, one after another: 0 for the encoder's proposals, 1 to K for decoder layers.
        query_inds: (L, G) int64 on the CPU; -1 where an image has more ground truths than there are queries.
    """

    layers: Tuple[int, ...]
    query_inds: Tensor


def match_layers(model: DetectionTransformer, predictions: LayerPredictions) -> List[LayerMatches]:
    """Match every layer of B images with the costs that the model is trained with.

    Raises:
        ValueError: if the model's head has no Hungarian assigner.
    """
    targets, groups = predictions.targets, predictions.groups
    per_group = []
    for group, matches in zip(groups, batched_assigner(model).assign_batch(groups, targets)):
        query_inds = targets.labels.new_full((len(group.logits), *targets.labels.shape), NO_QUERY)
        query_inds[matches.layer_inds, matches.image_inds, matches.gt_inds] = matches.query_inds
        per_group.append(query_inds)
    query_inds = torch.cat(per_group).cpu()
    return [
        LayerMatches(predictions.layers, query_inds[:, image, :num_gts])
        for image, num_gts in enumerate(targets.num_gts)
    ]


def batched_assigner(model: DetectionTransformer) -> StableHungarianAssigner:
    """The assigner of the model's head or, for mmdet's own, one of the same costs that matches all layers at once.

    Where the head compares masks, too, these are left out: layers are compared by classes and boxes in all models.
    """
    assigner = getattr(model.bbox_head, 'assigner', None)
    if isinstance(assigner, StableHungarianAssigner):
        if not any(map(compares_masks, assigner.match_costs)):
            return assigner
        costs = zip(model.bbox_head.train_cfg['assigner']['match_costs'], assigner.match_costs)
        return StableHungarianAssigner([cfg for each in costs for cfg in costs_without_masks(*each)])
    if not isinstance(assigner, HungarianAssigner):
        raise ValueError(
            f'{type(model.bbox_head).__name__} has {type(assigner).__name__} for an assigner, but stability is that of '
            'a HungarianAssigner; keep train_cfg.assigner in the config of the model'
        )
    return StableHungarianAssigner(model.bbox_head.train_cfg['assigner']['match_costs'])


def costs_without_masks(cfg: ConfigType, cost: BaseMatchCost) -> List[ConfigType]:
    """The config of a match cost that looks at classes and boxes only; none for a cost of masks."""
    if isinstance(cost, PositionModulatedFocalCost):
        return [dict(cfg, position_metric='box', num_things=None)]
    return [] if compares_masks(cost) else [cfg]


def unstable_scores(matches: Sequence[LayerMatches]) -> Dict[int, float]:
    """Share of ground truths, in percent, whose matched query differs between a layer and the one before it.

    Returns:
        Number of the layer -> score, over all images together; NaN where there is no ground truth at all. Layer 1 is
        compared with the encoder's proposals, where there are any.

    Raises:
        ValueError: for no images, or images that were matched at different layers.

    Source: arXiv:2304.04742 Fig. 3.
    """
    layers = {image.layers for image in matches}
    if len(layers) != 1:
        raise ValueError(f'matches of one model on at least one image are needed, got those of layers {sorted(layers)}')
    query_inds = torch.cat([image.query_inds for image in matches], dim=1)
    changed = (query_inds[1:] != query_inds[:-1]).float().mean(dim=1) * 100
    return dict(zip(layers.pop()[1:], changed.tolist()))


@METRICS.register_module()
class MatchingStability(BaseMetric):
    """Unstable score of every decoder layer, beside other metrics in ``val_evaluator`` or ``test_evaluator``.

    Needs ``dict(type='MatchingStabilityHook')`` in ``custom_hooks``, which hands it the model. Runs the model once more
    on the images it looks at. Results are called ``matching/unstable_1`` (layer 1 against the encoder's proposals), ...
    and ``matching/unstable_mean``, in percent; lower is more stable.

    Args:
        num_images: how many images to look at, the first ones of the data set; None for all.
        collect_device, prefix: as in mmengine.

    Raises:
        ValueError: if ``num_images`` is below 1; while evaluating, if nobody handed over the model.

    Source: arXiv:2304.04742 Fig. 3, which looks at 20 images.
    """

    default_prefix = 'matching'

    def __init__(
        self, num_images: Optional[int] = 20, collect_device: str = 'cpu', prefix: Optional[str] = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if num_images is not None and num_images < 1:
            raise ValueError(f'num_images={num_images}: at least 1 is needed, or None for all')
        self.num_images = num_images
        self.model: Optional[DetectionTransformer] = None

    def process(self, data_batch: Dict[str, list], data_samples: Sequence[dict]) -> None:
        """Match one batch; what the model detected in it, ``data_samples``, is not looked at."""
        if self.model is None:
            raise ValueError('MatchingStability has no model: add dict(type="MatchingStabilityHook") to custom_hooks')
        # Images are dealt out to the processes in turn, so that each has its share of the first ones.
        share = math.inf if self.num_images is None else math.ceil(self.num_images / get_world_size())
        if len(self.results) < share:
            self.results += match_layers(self.model, predict_layers(self.model, data_batch))

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Scores of the results of all processes, in the order of the data set."""
        matches = [LayerMatches(*image) for image in results[: self.num_images]]  # mmengine made plain tuples of them
        scores = unstable_scores(matches)
        mean = sum(scores.values()) / len(scores) if scores else math.nan
        return {**{f'unstable_{layer}': score for layer, score in scores.items()}, 'unstable_mean': mean}
