from .digit_scenes import DIGIT_CLASSES, write_digit_scenes
from .loading import NamingInferencerLoader, NamingPipeline

__all__ = ['DIGIT_CLASSES', 'NamingInferencerLoader', 'NamingPipeline', 'write_digit_scenes']
