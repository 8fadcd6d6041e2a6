"""Published results, and results read from work dirs."""

from .manifest import Row, load_manifest, published_gain
from .run_log import METRICS, RunLog, differing_settings, find_runs, flatten, spread

__all__ = [
    'METRICS',
    'Row',
    'RunLog',
    'differing_settings',
    'find_runs',
    'flatten',
    'load_manifest',
    'published_gain',
    'spread',
]
