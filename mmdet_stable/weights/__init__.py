"""Published weights: read, recognised, converted to this package's names and back."""

from .containers import Published, read
from .errors import WeightsError

__all__ = ['Published', 'WeightsError', 'read']
