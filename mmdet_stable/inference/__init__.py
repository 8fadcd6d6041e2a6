"""Trained detectors at work: on pictures, folders, videos and URLs."""

from .detector import Detector, Outcome, load
from .model_files import ModelFiles, find_model

__all__ = ['Detector', 'ModelFiles', 'Outcome', 'find_model', 'load']
