"""Backbones whose batch norms may keep their statistics in training."""

from mmengine.model import BaseModule
from torch.nn.modules.batchnorm import _BatchNorm


class NormEvalBackbone(BaseModule):
    """A backbone with mmdet's switch ``norm_eval``.

    Attributes:
        norm_eval: whether batch norms stay in evaluation mode while the rest trains, as small batches need.
    """

    norm_eval: bool

    def train(self, mode: bool = True) -> 'NormEvalBackbone':
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
