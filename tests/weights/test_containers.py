"""Files of weights of every kind are read, and nothing in them is run."""

import argparse
import collections
import json
import pathlib
import pickle
import struct
import types

import numpy as np
import pytest
import torch

from mmdet_stable.engine import load_from_local
from mmdet_stable.weights import WeightsError, containers, read
from mmdet_stable.weights.errors import DamagedError
from tests.weights.fixtures import FILES


class Evil:
    """Asks whoever loads it to write a file."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Settings(dict):
    """A config object as others keep beside weights: a dict with attributes."""

    def __init__(self, **entries):
        super().__init__(entries)
        self.frozen = True


@pytest.mark.parametrize(
    'file,taken,others,number',
    [
        ('official_dino_tiny.pth', 'model', ('ema_model',), 229),
        ('official_dn_detr_tiny_legacy.pth', 'model', (), 234),
        ('detrex_stable_dino_tiny.pth', 'model', ('ema_state',), 241),
        ('detectron2_backbone_tiny.pkl', 'model', (), 100),
        ('ddp_prefix.pth', 'model', (), 5),
        ('bare_state_dict.pth', '', (), 5),
    ],
)
def test_containers(file, taken, others, number):
    published = read(FILES / file)
    assert (published.taken, published.others, len(published.weights)) == (taken, others, number)
    assert not any(name.startswith('module.') for name in published.weights)
    assert all(isinstance(tensor, torch.Tensor) for tensor in published.weights.values())


def test_of_two_sets_of_weights_both_loaders_take_the_same(tmp_path):
    torch.save(dict(model=dict(w=torch.zeros(1)), state_dict=dict(w=torch.ones(1))), tmp_path / 'c.pth')
    assert read(tmp_path / 'c.pth').weights['w'].item() == 1
    assert load_from_local(str(tmp_path / 'c.pth'))['state_dict']['w'].item() == 1


def test_arguments_of_the_training_are_data():
    args = read(FILES / 'official_dn_detr_tiny_legacy.pth').args
    assert args['nheads'] == 2 and args['pe_temperatureH'] == 20 and args['transformer_activation'] == 'prelu'
    assert args['output_dir'].inert_arguments == ('logs', 'dn_DABDETR', 'R50')  # a path, which is not built


def test_moving_average():
    model, average = (read(FILES / 'detrex_stable_dino_tiny.pth', averaged) for averaged in (False, True))
    assert average.taken == 'ema_state' and average.others == ('model',)
    name = 'transformer.decoder.class_embed.0.bias'
    torch.testing.assert_close(average.weights[name], model.weights[name] + 0.25)
    with pytest.raises(WeightsError, match=r'no moving average of its weights .*leave out --ema'):
        read(FILES / 'bare_state_dict.pth', averaged=True)


def test_hostile_fixture_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r'hostile\.pth asks to call builtins\.eval.*nothing of it was run'):
        read(FILES / 'hostile.pth')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('suffix', ['zip', 'legacy', 'pickle'])
@pytest.mark.parametrize(
    'function,argument',
    [
        (eval, "open('ran', 'w')"),
        (exec, "open('ran', 'w')"),
        (pathlib.os.system, 'touch ran'),
        (pathlib.Path.touch, 'ran'),
    ],
    ids=['eval', 'exec', 'system', 'method'],
)
def test_hostile_files_do_not_run(tmp_path, monkeypatch, suffix, function, argument):
    monkeypatch.chdir(tmp_path)
    argument = pathlib.Path(argument) if function is pathlib.Path.touch else argument
    content = dict(model=dict(weight=torch.ones(2)), args=Evil(function, argument))
    path = tmp_path / 'file.pth'
    if suffix == 'pickle':
        content['model'] = dict(weight=np.ones(2))
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=suffix == 'zip')
    if (function, suffix) == (pathlib.Path.touch, 'pickle'):
        assert read(path).inert  # taken as data, together with the path
    else:
        with pytest.raises(WeightsError, match='nothing of it was run'):
            read(path)
    assert [file.name for file in tmp_path.iterdir()] == ['file.pth']


@pytest.mark.parametrize('legacy', [False, True])
def test_unknown_objects_beside_weights_are_data(tmp_path, legacy):
    """Namespaces, paths, configs that are dicts, numpy scalars, default dicts."""
    extra = dict(
        args=argparse.Namespace(output_dir=pathlib.PurePosixPath('a/b'), nested=types.SimpleNamespace(width=3)),
        cfg=Settings(depth=50),
        best=np.float64(0.5),
        hooks=collections.defaultdict(list, a=[1]),
        array=np.arange(3),
    )
    torch.save(
        dict(model=dict(weight=torch.ones(2)), **extra),
        tmp_path / 'file.pth',
        _use_new_zipfile_serialization=not legacy,
    )
    published = read(tmp_path / 'file.pth')
    assert published.weights['weight'].tolist() == [1, 1]
    assert published.args['nested'].width == 3
    assert 'argparse.Namespace' in published.inert and 'tests.weights.test_containers.Settings' in published.inert


def safetensors(tensors, metadata=None):
    header, data = {'__metadata__': metadata or {}}, b''
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = dict(dtype=dtype, shape=list(array.shape), data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.module.', 'model.'])
@pytest.mark.parametrize('key', ['model', 'state_dict', 'params', 'model_state_dict', 'net', 'weights', 'module', ''])
def test_containers_of_others(tmp_path, key, prefix):
    weights = {f'{prefix}weight': torch.ones(2), f'{prefix}bias': torch.ones(1)}
    torch.save({key: weights, 'epoch': 3} if key else weights, tmp_path / 'file.pth')
    published = read(tmp_path / 'file.pth')
    assert list(published.weights) == ['weight', 'bias'] and published.taken == key


def test_averages_of_others(tmp_path):
    """With a number of updates beside or among the weights, which is none of them."""
    average = {'n_averaged': torch.tensor(3), 'module.weight': torch.zeros(2)}
    plain = dict(weight=torch.zeros(2))
    for ema in (dict(ema_model=average), dict(ema=dict(module=plain, updates=3)), dict(state_dict_ema=plain)):
        torch.save(dict(model=dict(weight=torch.ones(2)), **ema), tmp_path / 'file.pth')
        assert read(tmp_path / 'file.pth').weights['weight'].tolist() == [1, 1]
        published = read(tmp_path / 'file.pth', averaged=True)
        assert list(published.weights) == ['weight'] and published.weights['weight'].tolist() == [0, 0]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_written_safetensors(tmp_path, dtype):
    tensors = {'a': torch.arange(3).to(dtype), 'count': torch.tensor(7), 'b': torch.ones(2, 3).T}
    (tmp_path / 'file.safetensors').write_bytes(containers.safetensors(tensors))
    found = read(tmp_path / 'file.safetensors').weights
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


def test_damaged_files(tmp_path):
    """Bytes that are not what was written: an error, whatever the loaders meet."""
    rng = np.random.default_rng(0)
    for file in ('official_dn_detr_tiny_legacy.pth', 'bare_state_dict.pth', 'detectron2_backbone_tiny.pkl'):
        whole = np.frombuffer((FILES / file).read_bytes(), np.uint8)
        for _ in range(10):
            damaged = whole.copy()
            damaged[rng.integers(len(whole) // 20, size=20)] ^= 255  # where names and shapes are
            (tmp_path / 'file').write_bytes(damaged.tobytes())
            try:
                read(tmp_path / 'file')
            except WeightsError as error:
                assert str(tmp_path / 'file') in str(error)
    torch.save(dict(model=dict(weight=torch.ones(2))), tmp_path / 'new.pth', pickle_protocol=4)
    with pytest.raises(WeightsError, match=r'newer protocol .*again by torch.save without pickle_protocol'):
        read(tmp_path / 'new.pth')


def test_safetensors(tmp_path):
    arrays = {
        'odd': ('U8', np.arange(3, dtype=np.uint8)),
        'weight': ('F32', np.arange(6, dtype=np.float32).reshape(2, 3)),
        'half': ('BF16', np.array([0x3F80, 0x4000], np.uint16)),
        'number': ('I64', np.array(7)),
    }
    (tmp_path / 'file.safetensors').write_bytes(safetensors(arrays))
    weights = read(tmp_path / 'file.safetensors').weights
    assert weights['weight'].tolist() == [[0, 1, 2], [3, 4, 5]] and weights['number'].item() == 7
    assert weights['half'].dtype == torch.bfloat16 and weights['half'].tolist() == [1, 2]
    cut = (tmp_path / 'file.safetensors').read_bytes()[:-9]
    (tmp_path / 'file.safetensors').write_bytes(cut)
    with pytest.raises(WeightsError, match='is cut off'):
        read(tmp_path / 'file.safetensors')


@pytest.mark.parametrize(
    'old,new',
    [
        (b'"weight"', b'"w\xff\xfe\xff\xff\xff"'),
        (b'"weight":', b'"weight" '),
        (b'data_offsets', b'data_offsetz'),
        (b'[2, 3]', b'[2, 4]'),
        (b'[0, 24]', b'[0, 23]'),
        (b'[0, 24]', b'[-1,24]'),
        (b'{"dtype"', b'["dtype"'),
    ],
    ids=['text', 'json', 'key', 'shape', 'end', 'begin', 'kind'],
)
def test_damaged_headers_of_safetensors(tmp_path, old, new):
    content = safetensors({'weight': ('F32', np.zeros((2, 3), np.float32))})
    assert old in content and len(old) == len(new)
    (tmp_path / 'file.safetensors').write_bytes(content.replace(old, new))
    with pytest.raises(DamagedError, match=r'file\.safetensors is damaged .*Copy or download it again'):
        read(tmp_path / 'file.safetensors')


def test_files_that_hold_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'missing\.pth: there is no such file'):
        read(tmp_path / 'missing.pth')
    whole = (FILES / 'bare_state_dict.pth').read_bytes()
    for name, content, message in (
        ('page.pth', b'<!DOCTYPE html><html>', 'an error page of a web site'),
        ('empty.pth', b'', 'no file of torch'),
        ('cut.pth', whole[: len(whole) // 2], 'is cut off: the end of its archive is missing'),
        ('cut.pkl', (FILES / 'detectron2_backbone_tiny.pkl').read_bytes()[:5000], 'no readable pickle of arrays'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            read(tmp_path / name)
    torch.save(dict(epoch=3, note='no weights'), tmp_path / 'other.pth')
    with pytest.raises(WeightsError, match='holds no tensors by name; found the keys epoch, note'):
        read(tmp_path / 'other.pth')
    torch.save([torch.ones(2)], tmp_path / 'list.pth')
    with pytest.raises(WeightsError, match='holds a list; expected weights by name'):
        read(tmp_path / 'list.pth')
