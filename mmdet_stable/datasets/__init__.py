from .digit_scenes import DIGIT_CLASSES, write_digit_scenes

__all__ = ['DIGIT_CLASSES', 'write_digit_scenes']
