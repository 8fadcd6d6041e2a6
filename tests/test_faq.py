"""Messages that docs/faq.md calls seen are provoked here, and the remedies tried."""

import json
import re
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.hub import get_config

from tests.utils import ROOT, build, samples, shrink

PAGE = (ROOT / 'docs' / 'faq.md').read_text()
MMDETS, OURS = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 'configs/stable_dino_r50_12e.py'


def model_cfg(name, width=256, **changes):
    cfg = deepcopy((get_config(name) if '::' in name else Config.fromfile(ROOT / name)).model)
    shrink(cfg, width)
    cfg.update(changes)
    return cfg


def predict(cfg, size=64):
    return build(cfg).eval().predict(torch.randn(1, 3, size, size), samples((0,), (size, size)))


def loss(cfg, images, num_classes=7):
    return build(cfg).train().loss(images, samples((2,), (64, 64), num_classes=num_classes))


def message(raised):
    """The beginning of the message, as the page writes it."""
    text = ' '.join(str(raised.value).split())
    stated = [re.sub(r'^\w[\w.]*: ', '', entry.strip("'")) for entry in re.findall(r'\*\*`([^`]+)`', PAGE)]
    assert any(text.strip("'").startswith(entry.strip("'")) for entry in stated), text
    return True


def test_the_page_has_twenty_messages():
    assert len(re.findall(r'^\*\*', PAGE, flags=re.M)) >= 20


def test_small_images():
    with pytest.raises(RuntimeError) as raised:
        predict(model_cfg(MMDETS, num_queries=900))
    assert message(raised) and len(predict(model_cfg(OURS, num_queries=900))) == 1
    assert len(predict(model_cfg(MMDETS, num_queries=20))) == 1


def test_values_that_are_not_finite():
    images = torch.full((1, 3, 64, 64), float('nan'))
    with pytest.raises(ValueError) as raised:
        loss(model_cfg(MMDETS), images)
    assert message(raised)
    with pytest.raises(ValueError, match='image 0 of the batch: predicted logits'):
        loss(model_cfg(OURS), images)


def test_labels_beyond_the_classes():
    cfg = model_cfg(OURS)
    cfg.bbox_head.num_classes = 2
    with pytest.raises(IndexError) as raised:
        loss(deepcopy(cfg), torch.randn(1, 3, 64, 64))
    assert message(raised)
    cfg.bbox_head.num_classes = 7
    assert loss(cfg, torch.randn(1, 3, 64, 64))


def test_widths_and_levels():
    with pytest.raises(RuntimeError) as raised:
        predict(model_cfg(MMDETS, width=64))
    assert message(raised)
    cfg = model_cfg(MMDETS)
    cfg.neck.num_outs = 3
    with pytest.raises(RuntimeError) as raised:
        predict(deepcopy(cfg), size=256)
    assert message(raised)
    cfg.num_feature_levels = 3
    for layer in (cfg.encoder.layer_cfg.self_attn_cfg, cfg.decoder.layer_cfg.cross_attn_cfg):
        layer.num_levels = 3
    assert len(predict(cfg, size=256)) == 1


def test_a_config_that_is_built_twice():
    cfg = model_cfg(MMDETS)
    MODELS.build(cfg)
    with pytest.raises(AssertionError) as raised:
        MODELS.build(cfg)
    assert 'share_pred_layer' in str(raised.value) and 'share_pred_layer, num_pred_layer' in PAGE


def test_fairscale():
    cfg = model_cfg(MMDETS)
    cfg.encoder.num_cp = 1
    try:
        MODELS.build(cfg)
    except NotImplementedError as error:
        assert 'please install fairscale' in ' '.join(str(error).split())
    ours = model_cfg(OURS)
    ours.encoder.num_cp = 1
    assert loss(ours, torch.randn(1, 3, 64, 64))


def test_classes_of_other_names(tmp_path):
    content = dict(
        images=[dict(id=1, file_name='a.png', width=9, height=9)],
        categories=[dict(id=1, name='cat')],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0)],
    )
    (tmp_path / 'cats.json').write_text(json.dumps(content))

    def dataset(classes):
        filters = dict(filter_empty_gt=True, min_size=1)
        return DATASETS.build(
            dict(
                type='CocoDataset',
                ann_file=str(tmp_path / 'cats.json'),
                data_prefix=dict(img=''),
                metainfo=dict(classes=classes),
                filter_cfg=filters,
            )
        )

    with pytest.raises(ValueError) as raised:
        dataset(('dog',))
    assert message(raised) and len(dataset(('cat',))) == 1


def test_what_nobody_imported(tmp_path):
    """Without this package, neither its models nor checkpoints of mmengine."""
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), tmp_path / 'plain.pth')
    code = (
        'import sys, torch\n'
        'from mmengine.logging import HistoryBuffer\n'
        'from mmengine.runner.checkpoint import CheckpointLoader\n'
        'from mmdet.registry import MODELS\n'
        'from mmdet.utils import register_all_modules\n'
        'register_all_modules()\n'
        'buffer = HistoryBuffer()\n'
        'buffer.update(1.0)\n'
        f'path = {str(tmp_path / "a.pth")!r}\n'
        'torch.save(dict(state_dict=dict(w=torch.zeros(1)), message_hub=dict(log=buffer)), path)\n'
        'for action in (lambda: MODELS.build(dict(type="StableDINO")), '
        'lambda: CheckpointLoader.load_checkpoint(path, "cpu")):\n'
        '    try:\n        action()\n'
        '    except Exception as error:\n        print(type(error).__name__, str(error).splitlines()[0])\n'
        'import mmdet_stable\n'
        'print("loaded", list(CheckpointLoader.load_checkpoint(path, "cpu")), "StableDINO" in MODELS)\n'
    )
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert "KeyError 'StableDINO is not in the mmdet::model registry" in result.stdout
    assert 'UnpicklingError Weights only load failed' in result.stdout
    assert "loaded ['state_dict', 'message_hub'] True" in result.stdout
