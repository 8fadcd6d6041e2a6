"""Tiny models, tiny batches and golden values for the tests."""

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmdet_stable.weights import families, naming
from mmdet_stable.weights.parity import load_parts

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / 'golden'
STABLE_DINO = 'configs/stable_dino_r50_12e.py'


def shrunk(
    width: int = 32,
    num_heads: int = 4,
    num_layers: int = 3,
    num_levels: int = 3,
    num_queries: int = 20,
    num_classes: int = 7,
    base_channels: int = 8,
) -> dict:
    """What makes a DINO-like model config as small as tests need it, without pretrained weights."""
    attention = dict(embed_dims=width, num_heads=num_heads)
    deformable = dict(attention, num_levels=num_levels)
    ffn = dict(embed_dims=width, feedforward_channels=2 * width)
    return dict(
        num_queries=num_queries,
        num_feature_levels=num_levels,
        backbone=dict(
            depth=18,
            base_channels=base_channels,
            frozen_stages=-1,
            norm_eval=False,
            norm_cfg=dict(type='BN', requires_grad=True),
            init_cfg=None,
        ),
        neck=dict(
            in_channels=[base_channels * 2, base_channels * 4, base_channels * 8],
            out_channels=width,
            norm_cfg=dict(type='GN', num_groups=8),
            num_outs=num_levels,
        ),
        encoder=dict(num_layers=num_layers, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
        decoder=dict(
            num_layers=num_layers, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn)
        ),
        positional_encoding=dict(num_feats=width // 2),
        bbox_head=dict(num_classes=num_classes, embed_dims=width),
        test_cfg=dict(max_per_img=15),
    )


def tiny_model_cfg(config: str = STABLE_DINO, overrides: Optional[dict] = None, **sizes) -> ConfigDict:
    """The model of a config file, shrunk, with ``overrides`` merged in last."""
    cfg = get_config(config) if '::' in config else Config.fromfile(ROOT / config)
    small = Config._merge_a_into_b(shrunk(**sizes), cfg.model)
    return ConfigDict(Config._merge_a_into_b(overrides or {}, small))


def shrink(node: dict, width: int = 32) -> None:
    """Make the model config of any detector of the family small in place, whatever its parts and levels."""
    sizes = dict(
        embed_dims=width,
        num_heads=4 if width == 32 else 8,
        feedforward_channels=2 * width,
        num_layers=2,
        num_feats=width // 2,
        num_queries=20,
        out_channels=width,
        feat_channels=width,
        mask_dims=width,
        num_points=64,
        init_cfg=None,
    )
    for key, value in node.items():
        if key in sizes:
            node[key] = sizes[key]
        elif isinstance(value, dict):
            shrink(value, width)
    if 'backbone' in node:
        backbone = node['backbone']
        if backbone['type'] == 'SwinTransformer':
            backbone.update(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4)
        else:
            backbone.update(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False)
            backbone['norm_cfg']['requires_grad'] = True
        node['neck']['in_channels'] = [8 * 2**stage for stage in backbone['out_indices']]
        if node['neck']['norm_cfg']:
            node['neck']['norm_cfg']['num_groups'] = 8
        node['test_cfg']['max_per_img'] = 15


def with_masks(batch: List[DetDataSample], model_cfg: dict, seed: int = 0) -> List[DetDataSample]:
    """The same samples with what MaskDINO learns from: masks that fill the boxes, and a map of stuff where there is
    some."""
    rng = np.random.default_rng(seed)
    num_classes = model_cfg['bbox_head']['num_classes']
    num_things = model_cfg['bbox_head'].get('num_things', num_classes)
    for sample in batch:
        height, width = sample.batch_input_shape
        gts = sample.gt_instances
        masks = np.zeros((len(gts), height, width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, gts.bboxes.round().int().tolist()):
            mask[y1:y2, x1:x2] = 1
        gts.masks = BitmapMasks(masks, height, width)
        if num_things < num_classes:
            gts.labels %= max(num_things, 1)
            seg = np.full((1, height, width), 255)
            seg[:, : height // 2] = rng.integers(num_things, num_classes)
            sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(seg))
    return batch


def build(model_cfg: ConfigDict, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = MODELS.build(model_cfg)
    model.init_weights()
    return model


def samples(
    num_gts: Sequence[int], shape: Tuple[int, int] = (96, 128), num_classes: int = 7, seed: int = 0
) -> List[DetDataSample]:
    """Data samples with random boxes of at least 8 px, all images of one size."""
    rng = np.random.default_rng(seed)
    height, width = shape
    result = []
    for num in num_gts:
        sizes = rng.uniform(8, min(shape) / 2, (num, 2))
        corners = rng.uniform(0, 1, (num, 2)) * ((width, height) - sizes)
        boxes = torch.tensor(np.concatenate([corners, corners + sizes], 1), dtype=torch.float32).reshape(-1, 4)
        result.append(data_sample(boxes, torch.tensor(rng.integers(0, num_classes, num)), shape))
    return result


def data_sample(
    boxes_xyxy: Tensor, labels: Tensor, shape: Tuple[int, int], batch_shape: Optional[Tuple[int, int]] = None
) -> DetDataSample:
    sample = DetDataSample(
        metainfo=dict(img_shape=shape, ori_shape=shape, batch_input_shape=batch_shape or shape, scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(bboxes=boxes_xyxy, labels=labels)
    return sample


def golden(name: str) -> Dict[str, np.ndarray]:
    with np.load(GOLDEN / f'{name}.npz') as data:
        return dict(data)


def tensor(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(value))


def golden_samples(data: Dict[str, np.ndarray], scale: Optional[float] = None, prefix: str = '') -> List[DetDataSample]:
    """The ground truth of a golden file; images are ``scale`` pixels wide and high where the file gives no shapes."""
    batch_shape = tuple(int(v) for v in data.get('batch_input_shape', ())) or None
    result = []
    for image in range(sum(key.startswith(f'{prefix}gt_labels_') for key in data)):
        shape = tuple(int(v) for v in data['img_shapes'][image]) if scale is None else (int(scale), int(scale))
        whwh = torch.tensor([shape[1], shape[0]] * 2, dtype=torch.float32)
        boxes = bbox_cxcywh_to_xyxy(tensor(data[f'{prefix}gt_boxes_{image}'])) * whwh
        result.append(data_sample(boxes, tensor(data[f'{prefix}gt_labels_{image}']), shape, batch_shape))
    return result


def close(found: Tensor, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    """Assert equality up to ``tolerance`` of the largest value."""
    expected = tensor(expected)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def unmasked_samples(data: Dict[str, np.ndarray]) -> List[DetDataSample]:
    """The reference masks no padding at test time: as if the second image filled the batch's shape."""
    batch = golden_samples(data)
    for sample in batch:
        sample.set_metainfo(dict(img_shape=sample.batch_input_shape))
    return batch


def load_reference_weights(model: nn.Module, data: Dict[str, np.ndarray]) -> None:
    """Load the ``sd.*`` arrays of a golden file, which carry detrex's parameter names."""
    weights = {key[3:]: tensor(value) for key, value in data.items() if key.startswith('sd.')}
    load_parts(model, naming.to_ours(weights, families.recognised(weights, 'the golden file')).weights)


def build_head(config: str = STABLE_DINO, num_layers: int = 3, num_classes: int = 7, **overrides) -> nn.Module:
    """The head of a config alone, for ``num_layers`` decoder layers and the encoder."""
    model = tiny_model_cfg(config, dict(bbox_head=overrides), num_layers=num_layers, num_classes=num_classes)
    return MODELS.build(
        dict(
            model.bbox_head,
            train_cfg=model.train_cfg,
            test_cfg=model.test_cfg,
            num_pred_layer=num_layers + 1,
            share_pred_layer=False,
            as_two_stage=True,
        )
    )
