"""What a detector needs to know about a model of timm, which is built without memory for that and tried."""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch

from mmdet_stable.engine.layer_decay import blocks_of
from mmdet_stable.models.backbones.timm_backbone import feature_places, import_timm, is_plain

STRIDES = (8, 16, 32)
SCALES = {8: (1, 0.5), 14: (2, 1, 0.5), 16: (2, 1, 0.5), 32: (4, 2, 1)}  # of the pyramid, by the side of a patch
# Settings with which a model takes images of any size, simplest first.
FREE_SIZE: Tuple[dict, ...] = ({}, dict(dynamic_img_size=True))
CELLS = (3, 5)  # height and width, in cells of the coarsest features, of the image that a model is tried with


class TimmModel(NamedTuple):
    """A model of timm, as a backbone of a detector.

    Attributes:
        name: as ``timm.create_model`` takes it.
        settings: more arguments of ``timm.create_model``.
        strides: of the features to take: 8, 16 and 32, or that of a plain vision transformer's patches alone.
        channels: of these.
        scales: of the simple feature pyramid that a plain vision transformer needs; empty for others.
        divisor: that height and width of images must have.
        layers: transformer layers; 0 where there are none.
        mean, std: of images from 0 to 255, in RGB.
    """

    name: str
    settings: dict
    strides: Tuple[int, ...]
    channels: Tuple[int, ...]
    scales: Tuple[float, ...]
    divisor: int
    layers: int
    mean: List[float]
    std: List[float]


def find_timm_model(name: str) -> TimmModel:
    """A model by its name.

    Raises:
        ImportError: if timm is not installed.
        ValueError: if there is no such model, or it has no features of strides 8, 16 and 32 and is no plain vision
            transformer with patches of 8, 14, 16 or 32 pixels, or it takes images of one size only.
    """
    problem: Optional[str] = None
    for settings in FREE_SIZE:
        try:
            model = build(name, settings)
        except TypeError:
            if not settings:
                raise
            break  # it knows no such setting
        strides, scales = levels(model, name)
        for divisor in divisors(strides, scales):
            problem = trial(model, divisor)
            if problem is None:
                channels = model.feature_info.channels()
                places = feature_places(model, name, strides)
                return TimmModel(
                    name=name,
                    settings=settings,
                    strides=strides,
                    channels=tuple(channels[place] for place in places),
                    scales=scales,
                    divisor=divisor,
                    layers=len(blocks_of(model)),
                    mean=[round(255 * value, 3) for value in model.default_cfg['mean']],
                    std=[round(255 * value, 3) for value in model.default_cfg['std']],
                )
    raise ValueError(
        f'backbone=timm:{name} does not take images of all sizes: {problem}. Detectors need that; timm:convnext_tiny, '
        'timm:swin_tiny_patch4_window7_224 and timm:vit_small_patch16_224 e.g. do'
    )


def build(name: str, settings: dict) -> Any:
    """A ``features_only`` model whose weights have shapes, and no values."""
    timm = import_timm()
    try:
        with torch.device('meta'):
            return timm.create_model(name, pretrained=False, features_only=True, **settings).eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f'backbone=timm:{name}: {error}') from error


def levels(model: Any, name: str) -> Tuple[Tuple[int, ...], Tuple[float, ...]]:
    """Strides to take, and scales of the simple feature pyramid, which only a plain vision transformer needs."""
    if not is_plain(model):
        feature_places(model, name, STRIDES)
        return STRIDES, ()
    patch = model.feature_info.reduction()[0]
    if patch not in SCALES:
        raise ValueError(
            f'backbone=timm:{name} has patches of {patch} pixels; simple feature pyramids are known for '
            f'{", ".join(map(str, SCALES))}'
        )
    return (patch,), SCALES[patch]


def divisors(strides: Sequence[int], scales: Sequence[float]) -> Sequence[int]:
    """Divisors of the size of images to try: plain vision transformers need whole patches, two of them to pool."""
    return (round(strides[0] / min(scales)),) if scales else (1, max(strides))


def trial(model: Any, divisor: int) -> Optional[str]:
    """Let a model look at an image of a size that it was not made for; what it says against that, or None."""
    height, width = (cells * divisor if divisor > 1 else cells * 32 + 1 for cells in CELLS)
    try:
        with torch.no_grad():
            model(torch.empty(1, 3, height, width, device='meta'))
    except (AssertionError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    return None
