from . import backbones, dense_heads, detectors, layers, losses, necks, task_modules

__all__ = ['backbones', 'dense_heads', 'detectors', 'layers', 'losses', 'necks', 'task_modules']
