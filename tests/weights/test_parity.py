"""Converted golden weights compute what the reference recorded; near ties of proposals are allowed for, no more."""

import json
import runpy

import mmcv
import numpy as np
import pytest
import torch

from mmdet_stable.weights import convert, parity
from mmdet_stable.weights.cli import main
from mmdet_stable.weights.configs import text_of
from tests.utils import GOLDEN, ROOT, golden
from tests.weights.fixtures import FILES, tiny_config

FAMILIES = {
    'dino_forward_nofusion': 'detrex_dino',
    'stable_dino_forward': 'detrex_stable_dino',
    'dn_detr_forward': 'detrex_dn_detr',
    'dn_deformable_detr_forward': 'detrex_dn_deformable_detr',
    'h_deformable_two_stage': 'detrex_h_deformable_detr',
    'maskdino_5level': 'maskdino',
    'maskdino_high2low_bitmask': 'maskdino',
    'maskdino_mask2box': 'maskdino',
    'maskdino_panoptic': 'maskdino',
    'maskdino_semantic': 'maskdino_semantic',
}


@pytest.mark.parametrize('name', FAMILIES)
def test_golden_outputs(name):
    family, result = parity.compare_golden(golden(name))
    assert family == FAMILIES[name]
    assert result.good and not result.swapped
    assert (result.masks is not None) == name.startswith('maskdino')


def test_table(capsys):
    files = [str(GOLDEN / f'{name}.npz') for name in ('dn_detr_forward', 'stable_loss_s11')]
    assert main(['--check', *files]) == 0
    printed = capsys.readouterr().out
    assert 'dn_detr_forward' in printed and 'equal' in printed and 'stable_loss_s11' not in printed
    assert main(['--check', files[1]]) == 1
    assert 'holds recorded weights and outputs' in capsys.readouterr().err


def test_other_weights_are_found(tmp_path, capsys):
    data = golden('dn_detr_forward')
    data['sd.class_embed.bias'] = data['sd.class_embed.bias'] + 1e-3
    np.savez(tmp_path / 'changed.npz', **data)
    assert main(['--check', str(tmp_path / 'changed.npz')]) == 1
    assert 'DIFFERENT' in capsys.readouterr().out


def test_recorded_outputs_of_a_file(tmp_path, capsys):
    (tmp_path / 'tiny.py').write_text(text_of(tiny_config('official_dino_tiny')))
    source, recorded = FILES / 'official_dino_tiny.pth', FILES / 'official_dino_tiny_expected.npz'
    assert main([str(source), str(tmp_path / 'tiny.py'), '--check', str(recorded)]) == 0
    assert 'equal' in capsys.readouterr().out


def test_near_ties_may_swap():
    """As if rounding had swapped two proposals in the reference: found only where their scores are nearly equal."""
    data = golden('dino_forward_nofusion')
    weights = {key[3:]: torch.from_numpy(value) for key, value in data.items() if key.startswith('sd.')}
    family = parity.families.recognised(weights, 'golden')
    ours = parity.naming.to_ours(weights, family).weights
    cfg, _ = parity.golden_config(ours, 'dino', json.loads(str(data['meta'])), data)
    model = parity.model_of(cfg).eval()
    parity.load_parts(model, ours)
    features = tuple(torch.from_numpy(data[f'feats_{level}'])[:1] for level in range(3))
    shape = tuple(int(value) for value in data['batch_input_shape'])
    with torch.no_grad():
        plain = parity.outputs(model, features, shape)
        content = model.query_embedding.weight.clone()
        order = [1, 0, *range(2, len(content))]
        model.query_embedding.weight.copy_(content[order])
        logits, boxes = (value[:, order].numpy() for value in parity.outputs(model, features, shape))
        model.query_embedding.weight.copy_(content)
    result = parity.compare(model, features, shape, logits, boxes)
    assert not result.good and not result.swapped  # their scores differ
    near = parity.NEAR_TIE
    try:
        parity.NEAR_TIE = 10.0
        assert parity.compare(model, features, shape, logits, boxes).swapped == (0,)
    finally:
        parity.NEAR_TIE = near
    assert parity.compare(model, features, shape, *(value.numpy() for value in plain)).good


REFERENCE = """
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmdet_stable.weights.conversion import model_of
from tests.weights.fixtures import raw_outputs

model = model_of(Config.fromfile({config!r}))
load_checkpoint(model, {checkpoint!r})


def outputs(image):
    assert image.shape == (3, 96, 128) and image.dtype == np.uint8
    logits, boxes = raw_outputs(model, image)
    return logits + {wrong}, boxes
"""


def test_comparison_with_a_reference_on_a_picture(tmp_path, capsys, monkeypatch):
    """Here, our own model takes the place of the reference."""
    monkeypatch.chdir(tmp_path)
    path = ROOT / 'tools' / 'analysis' / 'compare_with_reference.py'
    tool = runpy.run_path(str(path))['main']
    (tmp_path / 'tiny.py').write_text(text_of(tiny_config('detrex_stable_dino_tiny')))
    source = str(FILES / 'detrex_stable_dino_tiny.pth')
    convert(FILES / 'detrex_stable_dino_tiny.pth', tmp_path / 'ours.pth', str(tmp_path / 'tiny.py'))
    mmcv.imwrite(np.random.default_rng(0).integers(0, 255, (192, 256, 3), np.uint8), 'picture.png')
    for wrong, code, word in ((0.0, 0, 'equal'), (0.1, 1, 'DIFFERENT')):
        text = REFERENCE.format(config=str(tmp_path / 'ours.py'), checkpoint=str(tmp_path / 'ours.pth'), wrong=wrong)
        (tmp_path / 'reference.py').write_text(text)
        arguments = ['picture.png', source, '--config', str(tmp_path / 'tiny.py'), '--reference', 'reference.py']
        assert tool([*arguments, '--scale', '128', '96']) == code
        assert word in capsys.readouterr().out
    assert main([source, str(tmp_path / 'tiny.py'), '--check', 'recorded.npz']) == 1  # the last ones, again
