from .dilated_resnet import DilatedResNet
from .efficientnet_lite import EfficientNetLite

__all__ = ['DilatedResNet', 'EfficientNetLite']
