"""Any backbone of timm that gives features of strides 8, 16 and 32."""

import importlib
from types import ModuleType
from typing import Any, List, Sequence, Tuple

from mmdet.registry import MODELS
from torch import Tensor

from .norm_eval import NormEvalBackbone


def import_timm() -> ModuleType:
    """timm, which is an optional extra, and itself needs torchvision.

    Raises:
        ImportError: saying what to install.
    """
    try:
        return importlib.import_module('timm')
    except ImportError as error:
        raise ImportError(
            f'backbones of timm cannot be had ({error}): pip install timm, which brings torchvision along; see to it '
            'that the latter fits your torch'
        ) from error


def feature_places(model: Any, name: str, strides: Sequence[int]) -> List[int]:
    """Where features of the wanted strides stand in what a ``features_only`` model returns: the last of each stride.

    Raises:
        ValueError: if there are none, as of plain vision transformers.
    """
    places = {stride: place for place, stride in enumerate(model.feature_info.reduction())}
    if not set(strides) <= set(places):
        raise ValueError(
            f'timm:{name} has features of strides {", ".join(map(str, places))}; {", ".join(map(str, strides))} are '
            'needed, which e.g. convnext_tiny, resnet50 and efficientnet_b0 have'
        )
    return [places[stride] for stride in strides]


@MODELS.register_module()
class TimmBackbone(NormEvalBackbone):
    """A model of timm without its classifier.

    Args:
        name: as ``timm.create_model`` takes it.
        pretrained: whether timm downloads its weights, when the model is built.
        strides: of the features that are returned.
        norm_eval: whether batch norms keep their statistics in training, as small batches need.
        settings: more arguments of ``timm.create_model``.

    Raises:
        ImportError: if timm or its torchvision is not installed.
        ValueError: if the model has no features of such strides.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        strides: Sequence[int] = (8, 16, 32),
        norm_eval: bool = True,
        init_cfg: object = None,
        **settings: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.model = import_timm().create_model(name, pretrained=pretrained, features_only=True, **settings)
        self.places = feature_places(self.model, name, strides)
        self.channels = [self.model.feature_info.channels()[place] for place in self.places]
        self.norm_eval = norm_eval

    def init_weights(self) -> None:
        """Nothing: timm has initialised its model, which mmengine's walk through the modules would begin anew."""

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) to features of the given strides, (B, C, H / stride, W / stride) each."""
        features = self.model(x)
        chosen = (features[place] for place in self.places)
        # Swin and its like return channels last.
        last = str(getattr(self.model, 'output_fmt', 'NCHW')).endswith('NHWC')
        return tuple(feature.permute(0, 3, 1, 2).contiguous() if last else feature for feature in chosen)
