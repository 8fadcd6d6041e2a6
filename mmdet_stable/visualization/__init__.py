"""Figures."""

from .attention import plot_sampling_points
from .convergence import plot_convergence
from .detections import plot_detections
from .matching import plot_matching_trace, plot_score_alignment, plot_unstable_scores
from .output import Output, inlined

__all__ = [
    'Output',
    'inlined',
    'plot_convergence',
    'plot_detections',
    'plot_matching_trace',
    'plot_sampling_points',
    'plot_score_alignment',
    'plot_unstable_scores',
]
