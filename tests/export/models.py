"""Tiny detectors of every family, exported once for all tests."""

import copy
import json
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import onnx
import torch
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict

from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.export import Settings, Source, source_of
from mmdet_stable.export.exporting import write_checked
from mmdet_stable.export.onnx_file import exported_program, in_half_precision, onnx_model
from tests.utils import ROOT, build, shrink

FAMILIES = {
    'Stable-DINO': 'configs/stable_dino_r50_12e.py',
    'Deformable-DETR': 'configs/deformable_detr/stable_deformable_detr_r50_12e.py',
    'Deformable-DETR, one level': 'configs/deformable_detr/deformable_detr_one_level_r50_50e.py',
    'H-DETR': 'configs/deformable_detr/h_deformable_detr_r50_12e.py',
    'DAB-Deformable-DETR': 'configs/deformable_detr/dab_deformable_detr_r50_12e.py',
    'DN-Deformable-DETR': 'configs/dn_detr/dn_deformable_detr_r50_12e.py',
    'DN-DETR': 'configs/dn_detr/dn_detr_r50_50e.py',
    'DN-Conditional-DETR': 'tests/export/dn_conditional_detr.py',
    'DDQ-DETR': 'tests/export/ddq_detr.py',
    'MaskDINO': 'configs/mask_dino/mask_dino_r50_12e.py',
    'MaskDINO, panoptic and semantic': 'configs/mask_dino/mask_dino_panoptic_r50_12e.py',
}
# Their flow from level to level is that of all; symbols for the sizes of several maps take most of the time.
OF_SEVERAL_LEVELS = [FAMILIES[name] for name in ('Stable-DINO', 'Deformable-DETR', 'MaskDINO')]
CLASSES = tuple('abcdefg')
ANY_SIZE = Settings()


def tiny_config(config: str, nms: Optional[float] = None) -> Config:
    """The config with a model of a few layers, seven classes, and pictures of 160 x 128."""
    cfg = Config.fromfile(ROOT / config)
    model = cfg.model
    model.bbox_head.setdefault('embed_dims', 32)
    shrink(model)
    model.bbox_head.num_classes = len(CLASSES)
    if 'num_things' in model.bbox_head:
        model.bbox_head.num_things = 4
        model.test_cfg.update(semantic_on=True)
    encoder = model.neck.encoder if 'encoder' in model.neck else model.encoder
    encoder.num_layers = 1
    if 'dqs_cfg' in model:
        model.decoder.num_layers = 3  # between which NMS chooses twice
    if model.get('num_feature_levels', 1) > 1:
        use_levels(model, 2 if config in OF_SEVERAL_LEVELS else 1)
    model.test_cfg.pop('nms', None)
    if nms is not None:
        model.test_cfg.nms = dict(type='nms', iou_threshold=nms)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[:] = [transform for transform in pipeline if transform.type != 'LoadPanopticAnnotations']  # a package's
    for transform in pipeline:
        if transform.type == 'Resize':
            transform.scale = (160, 128)
    return cfg


def use_levels(model: ConfigDict, number: int) -> None:
    """Let a deformable detector see the first of its maps of the backbone and, of 2, one of half its size."""
    model.num_feature_levels = number
    model.backbone.out_indices = model.backbone.out_indices[:1]
    model.neck.update(in_channels=model.neck.in_channels[:1], num_outs=number)
    model.encoder.layer_cfg.self_attn_cfg.num_levels = number
    model.decoder.layer_cfg.cross_attn_cfg.num_levels = number


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """The model with weights that make its detections differ from each other."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        amount = 0.3 if 'cls_branches' in name or 'fc_cls' in name else 0.05
        parameter.data += amount * torch.randn(parameter.shape, generator=generator)
    if hasattr(model, 'distinct'):  # large boxes, among which NMS has to choose
        for branch in model.bbox_head.reg_branches:
            branch[-1].bias.data[2:] += 2
    return model.eval()


class Exported(NamedTuple):
    """A tiny detector, its files in both precisions with their reports, and the first before the check."""

    source: Source
    cfg: Config
    path: Path
    half: Path
    report: list
    half_report: list
    content: bytes


def source(config: str, settings: Settings, nms: Optional[float] = None) -> tuple:
    """A tiny detector to export, and its config."""
    cfg = tiny_config(config, nms)
    return source_of(lively(build(copy.deepcopy(cfg.model))), cfg, CLASSES, settings), cfg


def in_precision(source: Source, settings: Settings) -> Source:
    """The same detector, to be exported in another precision."""
    return source._replace(settings=settings, metadata={**source.metadata, 'precision': settings.precision})


def exported(config: str, folder: Path, settings: Settings = ANY_SIZE, nms: Optional[float] = None) -> Exported:
    """Both files of a tiny detector, which one translation gives."""
    detector, cfg = source(config, settings, nms)
    whole = onnx_model(exported_program(detector.module, settings), settings)
    content = whole.SerializeToString()
    half = in_half_precision(onnx.ModelProto.FromString(content))
    paths = folder / 'model.onnx', folder / 'half.onnx'
    report = write_checked(detector, whole, paths[0])
    halved = detector._replace(
        settings=settings._replace(fp16=True), metadata={**detector.metadata, 'precision': 'float16'}
    )
    return Exported(detector, cfg, *paths, report, write_checked(halved, half, paths[1]), content)


def det_inferencer(exported: Exported, folder: Path) -> Callable[[Any], DetDataSample]:
    """What mmdet's inferencer detects with the same weights on a path or an array."""
    exported.cfg.dump(folder / 'config.py')
    meta = dict(dataset_meta=dict(classes=CLASSES, palette='random'))
    torch.save(dict(state_dict=exported.source.detector.state_dict(), meta=meta), folder / 'weights.pth')
    inferencer = DetInferencer(
        str(folder / 'config.py'), str(folder / 'weights.pth'), device='cpu', show_progress=False
    )
    return lambda picture: inferencer(picture, return_datasamples=True, no_save_vis=True)['predictions'][0]


def write_trained(folder: Path) -> Path:
    """Config, checkpoint and data of a tiny detector, as files."""
    cfg = tiny_config(FAMILIES['Deformable-DETR, one level'])
    state = lively(build(copy.deepcopy(cfg.model))).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=CLASSES))), folder / 'weights.pth')
    cfg.dump(folder / 'config.py')
    data = write_digit_scenes(folder / 'data', num_train=1, num_val=2)
    annotations = data / 'annotations' / 'instances_val.json'
    content = json.loads(annotations.read_text())
    for category, name in zip(content['categories'], CLASSES):
        category['name'] = name
    annotations.write_text(json.dumps(content))
    return folder
