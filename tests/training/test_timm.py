"""A training with a plain vision transformer of timm, from one word to a detector that needs no timm weights."""

import pytest
import torch
from mmengine.config import Config

import mmdet_stable
from tests import timm_stand_in
from tests.datasets.layouts import coco_scenes
from tests.training.test_train import SETTINGS

SMALL = {'model.encoder.num_layers': 1, 'model.decoder.num_layers': 1}


@pytest.fixture(autouse=True)
def timm(monkeypatch):
    timm_stand_in.install(monkeypatch)


def test_training(tmp_path, capsys, monkeypatch):
    scenes = coco_scenes(tmp_path / 'scenes', num_train=3, num_val=2)
    wishes = {**SETTINGS, 'backbone': 'timm:vit14'}
    trained = mmdet_stable.train(scenes, epochs=1, work_dir=tmp_path / 'work', cfg_options=dict(SMALL), **wishes)
    reason = 'for the 2 layers of a plain vision transformer, as ViTDet'
    assert f'layer decay:    0.7                    {reason}' in capsys.readouterr().out
    assert f'# layer decay: {reason}' in trained.config.read_text()
    cfg = Config.fromfile(trained.config)
    assert cfg.model.data_preprocessor.pad_size_divisor == 28 and cfg.model.neck.type == 'SimpleFeaturePyramid'
    state = torch.load(trained.work_dir / 'epoch_1.pth', map_location='cpu', weights_only=True)
    rates = sorted({round(group['initial_lr'], 12) for group in state['optimizer']['param_groups']})
    lr = cfg.optim_wrapper.optimizer.lr
    assert rates == pytest.approx([1e-4 * 0.7**3, 1e-4 * 0.7**2, 1e-4 * 0.7, lr])

    built = timm_stand_in.create_model

    def offline(name, pretrained, **settings):
        assert not pretrained, 'nothing is to be downloaded'
        return built(name, pretrained, **settings)

    monkeypatch.setattr('timm.create_model', offline)
    detector = mmdet_stable.load(trained.work_dir, device='cpu')
    picture = torch.randint(0, 255, (90, 121, 3), dtype=torch.uint8).numpy()
    assert len(detector.predict([picture])) == 1
