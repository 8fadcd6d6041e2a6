"""Every config builds, trains a step and predicts; each says in its first line what it is."""

import copy
import json
import re
from functools import lru_cache

import cv2
import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import nn

from mmdet_stable.engine.hooks import check_dataset
from mmdet_stable.engine.launch import own_settings
from tests.utils import ROOT, build, samples, shrink, with_masks

CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


load = lru_cache(maxsize=None)(Config.fromfile)


def tiny(path):
    """The model of a config with its own kinds of parts and number of scales, as small as these allow."""
    model = copy.deepcopy(load(path).model)
    model.bbox_head.embed_dims = 256  # the default, which not every config spells out
    shrink(model, width=256 if model.type in ('DINO', 'DeformableDETR') else 32)  # mmdet's allow no other
    return model


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_trains_and_predicts(path):
    cfg = load(path)
    assert cfg.custom_imports.imports == ['mmdet_stable'] and cfg.randomness.seed == 60
    assert {hook.type for hook in cfg.default_hooks.values()} >= {'DatasetCheckHook', 'FineTuneClassesHook'}
    num_classes = cfg.model.bbox_head.num_classes
    model = build(tiny(path)).train()
    images, batch = torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96), num_classes)
    if cfg.model.type == 'MaskDINO':
        batch = with_masks(batch, cfg.model)
    losses = model.loss(images, batch)
    sum(value.sum() for value in losses.values()).backward()
    assert sum(losses.values()).isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    result = model.eval().predict(images, batch)[0]
    if cfg.model.test_cfg.get('instance_on', True):
        assert len(result.pred_instances) <= 15
    for kind in ('panoptic', 'sem'):
        wanted = cfg.model.test_cfg.get(dict(panoptic='panoptic_on', sem='semantic_on')[kind], False)
        assert wanted == (f'pred_{kind}_seg' in result)
        assert not wanted or result.get(f'pred_{kind}_seg').sem_seg.shape == (1, 64, 96)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_first_line_explains(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith('# ') and len(first) > 40


def test_all_rows_of_the_components_table_add_up():
    """PSL, PMC and fusion switched on one after another end at the config of the whole; controls add one to DINO."""
    model = {path.stem: load(path).model for path in CONFIGS}
    off, psl, both, whole = (model[stem] for stem in ('dino_nms', 'psl', 'psl_pmc', 'stable_dino_r50_12e'))
    assert ('fusion' in off.encoder, psl.encoder.fusion, both.encoder.fusion) == (False, None, None)
    assert model['dense_fusion'].encoder == whole.encoder and model['dense_fusion'].bbox_head == off.bbox_head
    assert model['pmc'].train_cfg == whole.train_cfg == both.train_cfg and model['pmc'].bbox_head == off.bbox_head
    assert psl.bbox_head == both.bbox_head == whole.bbox_head and psl.train_cfg == off.train_cfg
    assert off.test_cfg == whole.test_cfg and off.positional_encoding == whole.positional_encoding
    for stem in ('dense_fusion', 'pmc', 'focal_weight_6'):
        assert model[stem].dn_cfg == off.dn_cfg == model['dino_r50_12e'].dn_cfg


def test_dino_with_nms_is_dino_tested_with_nms():
    """Row 1 of Table 6 takes the weights of row 0, learns the same from them, and finds what NMS leaves of the same."""
    row0, row1 = (tiny(ROOT / 'configs' / name) for name in ('dino/dino_r50_12e.py', 'ablations/table6/dino_nms.py'))
    row0.test_cfg.max_per_img = row1.test_cfg.max_per_img = 200
    row0, row1 = build(row0, seed=0), build(row1, seed=1)
    for branch in row0.bbox_head.reg_branches:
        nn.init.constant_(branch[-1].bias[2:], 5.0)  # boxes that are large enough to overlap
    row1.load_state_dict(row0.state_dict(), strict=True)
    images, batch = torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96), 80)

    def losses(model):
        torch.manual_seed(2)  # of the denoising queries
        return model.train().loss(images, batch)

    expected, found = losses(row0), losses(row1)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].squeeze(), value.squeeze(), rtol=1e-4, atol=1e-6, msg=name)
    for before, after in zip(*(model.eval().predict(images, copy.deepcopy(batch)) for model in (row0, row1))):
        before, after = before.pred_instances, after.pred_instances
        kept, _ = batched_nms(before.bboxes, before.scores, before.labels, dict(type='nms', iou_threshold=0.8))
        assert 0 < len(after) == len(kept) < len(before)
        torch.testing.assert_close(after.bboxes, kept[:, :4], rtol=1e-4, atol=1e-3)


def test_the_overlay_gives_all_rows_the_same_denoising_queries():
    overlay = own_settings(ROOT / 'configs' / 'demo_digits.py')
    for stem in ('dino_nms', 'psl', 'dense_fusion'):
        cfg = Config.fromfile(ROOT / 'configs' / 'ablations' / 'table6' / f'{stem}.py')
        cfg.merge_from_dict(copy.deepcopy(overlay))
        assert cfg.model.dn_cfg == load(ROOT / 'configs' / 'demo_digits.py').model.dn_cfg


def test_swin_has_imagenet_weights_of_its_own():
    for path in CONFIGS:
        backbone = load(path).model.backbone
        if 'h_deformable_detr_swin_l' in path.stem:
            assert backbone.init_cfg.checkpoint.endswith('swin_large_patch4_window7_224_22k.pth')
        elif 'swin_l' in path.stem:
            assert backbone.init_cfg.checkpoint.endswith('swin_large_patch4_window12_384_22k.pth')
        elif 'swin' in path.stem:
            file = backbone.init_cfg.checkpoint.rsplit('/', 1)[1]
            size = re.search(r'swin_(\w)_', path.stem)[1]
            assert (
                file.startswith(f'swin_{size}') and f'window{backbone.window_size}_{backbone.pretrain_img_size}' in file
            )
        elif not path.stem.startswith('demo_'):
            assert backbone.init_cfg.checkpoint == f'torchvision://resnet{backbone.depth}'


def test_schedules():
    """The learning rate drops, and training ends, when the file name and the first line say. MaskDINO's 50 epochs are
    counted in steps; its published recipes are tested beside the others."""
    drops = {12: [11], 24: [20], 36: [30], 26: [24], 18: [15], 50: [40]}
    for path in CONFIGS:
        cfg = load(path)
        named = re.search(r'_(\d+)e$', path.stem)
        epochs = int(named[1]) if named else 50 if 'dn_detr' in path.parts else 12
        if not path.stem.startswith('demo_') and cfg.model.type != 'MaskDINO':
            (scheduler,) = cfg.param_scheduler
            assert cfg.train_cfg.max_epochs == scheduler.end == epochs, path
            assert scheduler.milestones == ([27, 33] if path.stem == 'dino_swin_l_36e' else drops[epochs]), path


def test_objects365_as_it_comes(tmp_path):
    """The pre-training config reads annotation files laid out like those of Objects365 v2, with all its classes."""
    cfg = load(ROOT / 'configs' / 'stable_dino_swin_l_objects365_26e.py')
    names = DATASETS.get('Objects365V2Dataset').METAINFO['classes']
    image = dict(id=7, file_name='images/v1/patch8/objects365_v1_00420917.jpg', width=90, height=60)
    box = dict(id=1, image_id=7, category_id=365, bbox=[5, 6, 30, 20], area=600, iscrowd=0)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = copy.deepcopy(loader.dataset)
        assert dataset.data_root == 'data/Objects365/Obj365_v2/'
        file = tmp_path / dataset.ann_file
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(dict(images=[image], annotations=[box], categories=categories)))
        picture = tmp_path / dataset.data_prefix.img / 'patch8' / 'objects365_v1_00420917.jpg'
        picture.parent.mkdir(parents=True)
        cv2.imwrite(str(picture), np.zeros((60, 90, 3), np.uint8))
        dataset = DATASETS.build(dict(dataset, data_root=str(tmp_path), pipeline=[]))
        check_dataset(dataset, cfg.model.bbox_head.num_classes, 'data')
        info = dataset.get_data_info(0)
        assert info['instances'][0]['bbox_label'] == 364
        assert info['img_path'].endswith('/patch8/objects365_v1_00420917.jpg')
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.data_root + cfg.val_dataloader.dataset.ann_file
