"""Any backbone of timm: one with features of strides 8, 16 and 32, or a plain vision transformer."""

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


def is_plain(model: Any) -> bool:
    """Whether all features of a ``features_only`` model have the same stride, as those of plain vision transformers."""
    return len(set(model.feature_info.reduction())) == 1


def feature_places(model: Any, name: str, strides: Sequence[int]) -> List[int]:
    """Where features of the wanted strides stand in what a ``features_only`` model returns: the last of each stride.

    Raises:
        ValueError: if there are none.
    """
    places = {stride: place for place, stride in enumerate(model.feature_info.reduction())}
    if not set(strides) <= set(places):
        if is_plain(model):
            (patch,) = places
            remedy = f'take backbone.strides=({patch},) and a SimpleFeaturePyramid as neck'
        else:
            remedy = 'convnext_tiny, resnet50 and efficientnet_b0 e.g. have 8, 16 and 32'
        raise ValueError(
            f'timm:{name} has features of strides {", ".join(map(str, places))}, not of '
            f'{", ".join(map(str, strides))}; {remedy}'
        )
    return [places[stride] for stride in strides]


@MODELS.register_module()
class TimmBackbone(NormEvalBackbone):
    """A model of timm without its classifier.

    Plain vision transformers have one stride, that of their patches: ``strides=(16,)``, with a
    :class:`~mmdet_stable.models.necks.SimpleFeaturePyramid` as neck, and mostly ``dynamic_img_size=True``, with which
    timm interpolates position embeddings to the grid of each batch. timm leaves out class and register tokens and the
    final norm. Images must be padded to whole patches: ``model.data_preprocessor.pad_size_divisor``.

    Args:
        name: as ``timm.create_model`` takes it.
        pretrained: whether weights that timm downloads are loaded when a training begins (``init_weights``).
        strides: of the features that are returned.
        norm_eval: whether batch norms keep their statistics in training, as small batches need.
        settings: more arguments of ``timm.create_model``, e.g. ``drop_path_rate``.

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
        self.name, self.pretrained, self.settings = name, pretrained, settings
        self.model = import_timm().create_model(name, pretrained=False, features_only=True, **settings)
        self.places = feature_places(self.model, name, strides)
        self.channels = [self.model.feature_info.channels()[place] for place in self.places]
        self.patch = strides[0] if is_plain(self.model) else 1
        self.norm_eval = norm_eval

    def init_weights(self) -> None:
        """Load timm's weights, or leave its random ones, which mmengine's walk through the modules would begin anew."""
        if self.pretrained:
            weights = import_timm().create_model(self.name, pretrained=True, features_only=True, **self.settings)
            self.model.load_state_dict(weights.state_dict())

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) to features of the given strides, (B, C, H / stride, W / stride) each.

        Raises:
            ValueError: for images that are not whole patches of a plain vision transformer.
        """
        height, width = x.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f'timm:{self.name} cannot divide images of {height} x {width} into patches of {self.patch} pixels; set '
                f'model.data_preprocessor.pad_size_divisor={2 * self.patch}'
            )
        features = self.model(x)
        chosen = (features[place] for place in self.places)
        # Swin and its like return channels last.
        last = str(getattr(self.model, 'output_fmt', 'NCHW')).endswith('NHWC')
        return tuple(feature.permute(0, 3, 1, 2).contiguous() if last else feature for feature in chosen)
