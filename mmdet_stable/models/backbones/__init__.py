from .dilated_resnet import DilatedResNet
from .efficientnet_lite import EfficientNetLite
from .timm_backbone import TimmBackbone

__all__ = ['DilatedResNet', 'EfficientNetLite', 'TimmBackbone']
