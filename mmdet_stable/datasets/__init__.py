from .digit_scenes import DIGIT_CLASSES, write_digit_scenes
from .loading import NamingInferencerLoader, NamingPipeline
from .transforms import SemanticRandomCrop

__all__ = ['DIGIT_CLASSES', 'NamingInferencerLoader', 'NamingPipeline', 'SemanticRandomCrop', 'write_digit_scenes']
