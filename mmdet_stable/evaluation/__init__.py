"""Published results, results read from work dirs, and looks into trained models."""

from .layer_predictions import LayerPredictions, class_scores, predict_layers
from .manifest import Row, load_manifest, published_gain
from .matching_stability import LayerMatches, MatchingStability, match_layers, unstable_scores
from .run_log import METRICS, RunLog, differing_settings, find_runs, flatten, spread
from .subject import Subject, load_subject

__all__ = [
    'METRICS',
    'LayerMatches',
    'LayerPredictions',
    'MatchingStability',
    'Row',
    'RunLog',
    'Subject',
    'class_scores',
    'differing_settings',
    'find_runs',
    'flatten',
    'load_manifest',
    'load_subject',
    'match_layers',
    'predict_layers',
    'published_gain',
    'spread',
    'unstable_scores',
]
