"""Published weights: read, recognised, converted to this package's names and back."""

from .containers import Published, read
from .conversion import Converted, Report, convert, to_ours, to_published
from .errors import WeightsError

__all__ = ['Converted', 'Published', 'Report', 'WeightsError', 'convert', 'read', 'to_ours', 'to_published']
