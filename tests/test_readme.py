"""The examples of the README, docs/training.md and docs/figures.md are executed as they stand."""

import json
import re

import torch
from mmdet.registry import DATASETS, HOOKS, METRICS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config

from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.weights import named
from mmdet_stable.weights.configs import text_of
from tests.utils import ROOT, build, samples, shrink, shrunk

PAGES = ('docs/training.md', 'README.md', 'docs/figures.md')
BLOCKS = [
    block for page in PAGES for block in re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(), flags=re.S)
]
OWN_DATA, MIXED = (block for block in BLOCKS if '_base_' in block)


def load(text, tmp_path):
    path = tmp_path / 'example.py'
    path.write_text(text.replace('/path/to/mmdet_stable', str(ROOT)))
    return Config.fromfile(path)


def test_own_data_needs_place_and_classes_only(tmp_path):
    cfg = load(OWN_DATA, tmp_path)
    assert cfg.model.type == 'StableDINO' and cfg.model.bbox_head.num_classes == 3
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == 'data/bccd/' and loader.dataset.metainfo.classes == (
            'RBC',
            'WBC',
            'Platelets',
        )
    assert cfg.test_evaluator.ann_file == cfg.val_evaluator.ann_file == 'data/bccd/annotations/instances_val.json'


def test_own_data_trains(tmp_path, monkeypatch):
    """Where the example expects them lie images of three classes; the model is made small."""
    cfg = load(OWN_DATA, tmp_path)
    data = write_digit_scenes(tmp_path / 'data' / 'bccd', num_train=2, num_val=1)
    (data / 'train').rename(data / 'images')
    annotations = data / 'annotations' / 'instances_train.json'
    content = json.loads(annotations.read_text())
    content['categories'] = [dict(id=i, name=name) for i, name in enumerate(cfg.classes, 1)]
    for number, annotation in enumerate(content['annotations']):
        annotation['category_id'] = number % 3 + 1
    annotations.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    shrink(cfg.model, width=256)
    model = build(cfg.model).train()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    losses = model(**model.data_preprocessor(pseudo_collate([dataset[0]]), training=True), mode='loss')
    assert dataset.metainfo['classes'] == ('RBC', 'WBC', 'Platelets') and len(losses) > 10
    assert all(value.isfinite() for value in losses.values())


def test_detecting(tmp_path, monkeypatch):
    """The code as it stands, but for the names of config, weights and image."""
    (code,) = [block for block in BLOCKS if 'street.jpg' in block]
    data = write_digit_scenes(tmp_path / 'scenes', num_train=1, num_val=1)
    cfg = Config.fromfile(ROOT / 'configs' / 'demo_digits.py')
    meta = dict(dataset_meta=dict(classes=cfg.digit_classes))
    torch.save(dict(state_dict=build(cfg.model).state_dict(), meta=meta), tmp_path / 'weights.pth')
    for old, new in (
        ("stable_dino_r50_12e'", "demo_digits'"),
        ('work_dirs/stable_dino_r50_12e/epoch_12.pth', str(tmp_path / 'weights.pth')),
        ('street.jpg', str(data / 'val' / '000001.png')),
    ):
        assert code.count(old) == 1
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / 'outputs' / 'vis' / '000001.png').stat().st_size > 1000
    found = json.loads((tmp_path / 'outputs' / 'preds' / '000001.json').read_text())
    assert len(found['bboxes']) == len(found['scores']) == 30


def test_unstable_score_in_training(tmp_path):
    (code,) = [block for block in BLOCKS if 'MatchingStabilityHook' in block]
    (tmp_path / 'val.json').write_text('{"images": [], "annotations": [], "categories": []}')
    cfg = load(code.replace('val.json', str(tmp_path / 'val.json')), tmp_path)
    assert [type(METRICS.build(metric)).__name__ for metric in cfg.val_evaluator] == ['CocoMetric', 'MatchingStability']
    assert HOOKS.build(cfg.custom_hooks[0]).interval == 1000


def test_mixing_into_mmdets_deformable_detr(tmp_path):
    cfg = load(MIXED, tmp_path)
    # Width 256 is hard-coded in mmdet's two-stage Deformable-DETR.
    small = Config._merge_a_into_b(shrunk(width=256, num_heads=8, num_layers=1, num_levels=4), cfg.model)
    model = build(small).train()
    assert (
        type(model).__name__ == 'DeformableDETR' and type(model.bbox_head.loss_cls).__name__ == 'PositionSupervisedLoss'
    )
    images, batch = torch.randn(2, 3, 64, 96), samples((2, 1), (64, 96))
    losses = model.loss(images, batch)
    sum(value.sum() for value in losses.values()).backward()
    assert all(value.isfinite().all() for value in losses.values())
    assert len(model.eval().predict(images, batch)) == 2


def test_the_readme_is_short():
    """As ``wc -w`` counts: 900 words, tables and code included."""
    assert len((ROOT / 'README.md').read_text().split()) <= 900


def test_assigner_in_mmdets_detr():
    """Softmax scores, whose cost has no batched form, in a head that matches image by image: mmdet's losses."""
    results = []
    for assigner in ('HungarianAssigner', 'StableHungarianAssigner'):
        cfg = get_config('mmdet::detr/detr_r50_8xb2-150e_coco.py').model
        cfg.backbone.update(depth=18, init_cfg=None)
        cfg.neck.in_channels = [512]
        cfg.train_cfg.assigner.type = assigner
        model = build(cfg).eval()  # without dropout
        results.append(model.loss(torch.ones(1, 3, 64, 64), samples((3,), (64, 64))))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


def test_published_weights(tmp_path, monkeypatch):
    """The code as it stands, with a demo model in place of the download."""
    (code,) = [block for block in BLOCKS if 'photo.jpg' in block]
    data = write_digit_scenes(tmp_path / 'scenes', num_train=1, num_val=1)
    config = ROOT / 'configs' / 'demo_digits.py'
    cfg = Config.fromfile(config)
    kept = named.Kept(tmp_path / 'weights.pth', config)
    meta = dict(cfg=text_of(cfg))  # before mmdet changes parts of it
    torch.save(dict(state_dict=build(cfg.model).state_dict(), meta=meta), kept.checkpoint)
    for function in ('fetch', 'kept_files'):
        monkeypatch.setattr(named, function, {'dino-r50-12e': kept}.get)
    monkeypatch.chdir(tmp_path)
    exec(code.replace('photo.jpg', str(data / 'val' / '000001.png')), {})
    assert (tmp_path / 'outputs' / 'vis' / '000001.png').stat().st_size > 1000
