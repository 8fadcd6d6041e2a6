"""Where weights lie in a file, and what loads them."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.runner.checkpoint import load_checkpoint

from mmdet_stable.engine.safe_loading import load_from_local, read_file
from mmdet_stable.utils.checkpoint import find_weights
from tests.utils import build, tiny_model_cfg

WEIGHTS = dict(weight=torch.ones(2))


@pytest.mark.parametrize(
    'checkpoint',
    [
        WEIGHTS,
        dict(model=WEIGHTS, epoch=3),
        dict(state_dict=WEIGHTS, meta={}),
        dict(state_dict=WEIGHTS, model=dict(other=torch.zeros(1))),
    ],
    ids=['bare', 'model', 'state_dict', 'both'],
)
def test_weights_are_found(checkpoint, tmp_path):
    assert find_weights(checkpoint) is WEIGHTS
    torch.save(checkpoint, tmp_path / 'c.pth')
    loaded = load_from_local(str(tmp_path / 'c.pth'))
    assert loaded.get('state_dict', loaded)['weight'].equal(WEIGHTS['weight'])
    assert set(loaded) == ({'weight'} if checkpoint is WEIGHTS else {*checkpoint, 'state_dict'})
    assert read_file(tmp_path / 'c.pth').keys() == checkpoint.keys()


@pytest.mark.parametrize(
    'checkpoint,message',
    [
        ([1], 'holds a list'),
        (dict(state_dict=[1]), 'holds a list as its "state_dict"'),
        (dict(model='resnet'), 'holds a str as its "model"'),
        (dict(model=dict(name='resnet')), 'holds no tensors by name'),
        (dict(meta=dict(epoch=3)), 'holds no tensors by name'),
    ],
)
def test_files_without_weights_are_explained(checkpoint, message, tmp_path):
    torch.save(checkpoint, tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=f'c.pth {message}; expected a checkpoint of mmengine'):
        load_from_local(str(tmp_path / 'c.pth'))


@pytest.mark.parametrize('content', [b'', b'text', b'\x80\x02hq,Z2', b'\x80\x02q,_>', b'\x80\x02j', b'PK\x03\x04'])
def test_junk_is_a_clear_error(content, tmp_path):
    """Whatever kind torch raises: EOFError, UnpicklingError, KeyError, IndexError and struct.error are among them."""
    (tmp_path / 'c.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'c.pth is (cut off, )?damaged, (or )?no checkpoint of torch'):
        read_file(tmp_path / 'c.pth')


def backbone(kind, **settings):
    if kind == 'SwinTransformer':
        sizes = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4)
    else:
        sizes = dict(depth=18, base_channels=8)
    model = MODELS.build(dict(type=kind, **sizes, **settings))
    model.init_weights()
    return model


@pytest.mark.parametrize('kind,prefix', [('SwinTransformer', 'backbone.'), ('ResNet', '')])
def test_backbones_load_what_is_stored_as_model(kind, prefix, tmp_path):
    """Swin reads files itself, most backbones leave it to mmengine, which knows no key "model"."""
    torch.manual_seed(1)
    trained = backbone(kind).state_dict()
    torch.save(dict(model={prefix + name: value for name, value in trained.items()}), tmp_path / 'b.pth')
    loaded = backbone(kind, init_cfg=ConfigDict(type='Pretrained', checkpoint=str(tmp_path / 'b.pth'))).state_dict()
    assert all(value.equal(trained[name]) for name, value in loaded.items())


def test_a_detector_loads_what_is_stored_as_model(tmp_path):
    trained, model = build(tiny_model_cfg(), seed=1), build(tiny_model_cfg(), seed=2)
    torch.save(dict(model=trained.state_dict(), optimizer={}), tmp_path / 'c.pth')
    load_checkpoint(model, str(tmp_path / 'c.pth'))
    assert all(value.equal(model.state_dict()[name]) for name, value in trained.state_dict().items())
