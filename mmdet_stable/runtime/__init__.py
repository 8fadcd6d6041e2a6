"""Detection with an exported model: needs numpy, onnxruntime, and opencv or Pillow; neither torch nor mmdet.

This folder imports nothing of its package, so that it can be copied beside a model and used alone:

    from mmdet_stable_runtime import Detector
    found = Detector('model.onnx')('street.jpg')

or ``python -m mmdet_stable_runtime model.onnx street.jpg``, which prints one JSON object for each picture.
"""

from .detector import Detector, Found, ModelError
from .pictures import PictureError

__all__ = ['Detector', 'Found', 'ModelError', 'PictureError']
