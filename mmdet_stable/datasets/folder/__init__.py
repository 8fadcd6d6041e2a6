"""Data as people have it on disk: COCO, YOLO or Pascal VOC, found by the usual names and read as COCO."""

from .reading import FoundData, read_data
from .records import DataError, Split
from .statistics import DataStatistics, data_statistics, describe, fault_lines

__all__ = [
    'DataError',
    'DataStatistics',
    'FoundData',
    'Split',
    'data_statistics',
    'describe',
    'fault_lines',
    'read_data',
]
