"""Small models with random weights, as files, and the pictures that they are given."""

from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hub import get_config

from mmdet_stable.weights.configs import text_of
from tests.utils import ROOT, build, shrink

SIZE = (96, 80)  # (width, height) that pipelines resize to
DIGITS = ROOT / 'configs' / 'demo_digits.py'


def small(name: str) -> Config:
    """A config of this package or of mmdet, made small, as are its images at test time."""
    cfg = get_config(name) if '::' in name else Config.fromfile(ROOT / 'configs' / name)
    if 'demo_digits_masks' in name:
        pass  # small as it is
    elif 'demo' in name:
        cfg.model.encoder.num_layers = cfg.model.decoder.num_layers = 1
    elif 'positional_encoding' in cfg.model or 'mask_dino' in name:
        shrink(cfg.model, 256)
    else:
        cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
        cfg.model.neck.in_channels = [8, 16, 32, 64]
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform['type'] == 'Resize':
            transform['scale'] = SIZE
    return cfg


def saved(cfg: Config, folder: Path, name: str = 'epoch_1', classes: bool = True) -> Path:
    """A checkpoint of a config's model with random weights, that says which classes it knows."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build(deepcopy(cfg.model))  # which mmdet's detectors write into
    meta = dict(dataset_meta=dict(classes=class_names(cfg))) if classes else {}
    path = folder / f'{name}.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def class_names(cfg: Config) -> tuple:
    head = cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head
    return tuple(map(str, range(head['num_classes'])))


def work_dir(folder: Path, name: str = 'demo_digits.py', **checkpoint) -> Path:
    """As a training leaves it: config and checkpoint."""
    cfg = small(name)
    saved(cfg, folder, **checkpoint)
    write_config(cfg, folder / Path(name).name)
    return folder


def write_config(cfg: Config, path: Path) -> None:
    """As ``Config.dump``, without the formatting, which takes seconds."""
    path.write_text(text_of(cfg))


def noise(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(path: Path, image: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return str(path)
