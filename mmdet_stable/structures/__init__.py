"""The values that travel between detector, assigner and loss.

Sizes used in every shape of this package: K layers (decoder layers, or the encoder, which counts as one), B images,
Q queries, C classes, G the largest number of ground truths of an image of the batch, P positives of a layer over the
whole batch, D channels, N memory tokens, L feature levels, T denoising queries of an image, E channels of mask
features.
"""

from .mask_targets import MaskTargets
from .matches import Matches
from .predicted_masks import MaskSamples, PredictedMasks
from .predictions import Predictions, Supervised
from .query_plan import QueryPlan, Segment
from .supervision import DenoisingLayout, Matched, Supervision
from .targets import BatchTargets

__all__ = [
    'BatchTargets',
    'DenoisingLayout',
    'MaskSamples',
    'MaskTargets',
    'Matched',
    'Matches',
    'PredictedMasks',
    'Predictions',
    'QueryPlan',
    'Segment',
    'Supervised',
    'Supervision',
]
