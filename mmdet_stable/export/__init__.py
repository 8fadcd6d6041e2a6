"""Export of trained detectors: to ONNX, and to programs of torch that run without mmdet."""

from .errors import ExportError
from .exporting import Evidence, Source, check_inputs, export, load, source_of
from .graph import ExportableDetector
from .spec import Settings

__all__ = [
    'Evidence',
    'ExportError',
    'ExportableDetector',
    'Settings',
    'Source',
    'check_inputs',
    'export',
    'load',
    'source_of',
]
