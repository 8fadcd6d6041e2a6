"""What tools/benchmarks/own_data.py sets beside ours: mmdet's DINO, in all sizes the same."""

import runpy

from mmengine.config import Config

from mmdet_stable import config
from mmdet_stable.training.backbones import BACKBONES
from mmdet_stable.training.config_file import as_dict
from tests.utils import ROOT, build


def test_mmdets_dino_has_our_sizes(tmp_path):
    backbone = BACKBONES['resnet18_scratch']
    settings = dict(num_queries=150, backbone=backbone.settings, neck=backbone.neck, dn_cfg=dict(num_queries=25))
    settings.update(bbox_head=dict(num_classes=3), test_cfg=dict(max_per_img=77))
    for part, layers in (('encoder', 2), ('decoder', 3)):
        settings[part] = dict(num_layers=layers, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64)))
    path = tmp_path / 'ours.py'
    path.write_text(f'_base_ = {config("stable_dino_r50_12e")!r}\nmodel = {as_dict(settings)}\n')
    ours = Config.fromfile(path).model
    theirs = runpy.run_path(str(ROOT / 'tools' / 'benchmarks' / 'own_data.py'))['mmdet_model'](ours)
    ours, theirs = build(ours), build(theirs)
    assert type(theirs).__name__ == 'DINO' and type(theirs.bbox_head).__name__ == 'DINOHead'
    for part in ('backbone', 'neck', 'decoder.layers'):
        shapes = [sorted(weight.shape for weight in model.get_submodule(part).parameters()) for model in (theirs, ours)]
        assert shapes[0] == shapes[1], part
    assert len(theirs.encoder.layers) == 2 and len(theirs.decoder.layers) == 3
    assert theirs.query_embedding.weight.shape == ours.query_embedding.weight.shape == (150, 256)
    assert theirs.bbox_head.num_classes == 3 and theirs.test_cfg['max_per_img'] == 77
    assert theirs.dn_query_generator.num_dn_queries == 25
