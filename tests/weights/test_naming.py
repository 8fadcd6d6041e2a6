"""Names of published models become ours, and ours theirs."""

import json
import re

import pytest
import torch

from mmdet_stable.weights import WeightsError, families, naming
from mmdet_stable.weights.rules import Counts, Translation, load_rules
from mmdet_stable.weights.tensors import OPERATIONS, UNUSED_ROWS, USED_ROWS, swin_merging
from tests.utils import GOLDEN
from tests.weights.fixtures import manifests, weights_of

MANIFESTS = manifests()
UNSUPPORTED = {
    'detrex_dab_deformable_detr_r50_two_stage': 'two-stage DAB-Deformable-DETR',
    'official_dn_dab_dino_deformable_r50': 'DN-DAB-DINO-Deformable-DETR',
    'official_dn_deformable_encoder_only_r50': 'deformable encoder only',
}


@pytest.mark.parametrize('model', sorted(set(MANIFESTS) - set(UNSUPPORTED)))
def test_names_and_values_come_back(model):
    """Every name of a published model has one of ours, and back, with all second names; every value, too."""
    published = weights_of(MANIFESTS[model])
    family = families.recognised(published, model)
    prefix = 'detrex_' if model.startswith('stable_dino') else ''
    assert f'{prefix}{model}'.startswith(family.name)
    renamed = naming.to_ours(published, family)
    assert not renamed.left_over
    facts = families.facts_of(renamed.weights, family.kind, dc5='dc5' in model)
    back = naming.to_published(renamed.weights, family, facts)
    assert not back.left_over
    assert set(back.weights) == set(published)
    for name, tensor in back.weights.items():
        assert tensor.shape == published[name].shape, name
        if name in family.background_weight:
            continue  # is no weight of the detector
        rows = list(USED_ROWS) if len(tensor) in (91, 92) and tensor.dim() else slice(None)
        if len(tensor) in (91, 92) and 'class_embed.6' in name:
            rows = slice(0, 80)
        assert torch.equal(tensor[rows] if tensor.dim() else tensor, published[name][rows] if tensor.dim() else tensor)


def test_names_that_were_verified_by_loading():
    """The rules say what a list of names says that was found independently, by loading into mmdet's DINO."""
    names = json.loads((GOLDEN / 'keymap_detrex_to_mmdet_dino.json').read_text())['map']
    translation = Translation(load_rules()[0]['detrex_dino'].rules, Counts(layers=3, scales=3, extra=1))
    known = {name: translation.to_ours(name) for name in names}
    assert {name: found[0] for name, found in known.items() if found} == names


def test_names_of_mask_dino_that_were_verified_by_loading():
    """Of parts of the detector, whose names a prototype of mmdet's layers had."""
    names = json.loads((GOLDEN / 'keymap_maskdino_to_mmdet.json').read_text())['map']
    translation = Translation(load_rules()[0]['maskdino'].rules, Counts(layers=9, scales=3, extra=1))
    for name, expected in names.items():
        ours, _, _ = translation.to_ours(f'sem_seg_head.{name}')
        assert re.sub('^(neck|bbox_head.predictor|decoder|dn_query_generator)[.]', '', ours) == expected


@pytest.mark.parametrize('model', UNSUPPORTED)
def test_detectors_that_no_model_here_can_hold(model):
    with pytest.raises(WeightsError, match=f'{UNSUPPORTED[model]}.*cannot be converted: '):
        families.recognised(weights_of(MANIFESTS[model]), 'file')


def test_every_family_is_tried():
    tried = {
        families.recognised(weights_of(MANIFESTS[model]), model).name for model in set(MANIFESTS) - set(UNSUPPORTED)
    }
    known = set(load_rules()[0]) - {'detectron2_backbone', 'official_conditional_detr', 'maskdino_semantic'}
    assert tried == known


@pytest.mark.parametrize('name', OPERATIONS)
def test_operations_come_back(name):
    operation = OPERATIONS[name]
    parts = 3 if name == 'stacked' else 1
    rows = {'label_rows': 80, 'label_and_unknown_rows': 81, 'class_and_background_rows': 81}.get(name, 80)
    for shape in ((rows, 4), (rows,)) if rows == 80 else ((rows, 4),):
        shape = (12,) if name == 'stacked' else shape
        ours = torch.randn(shape)
        written = operation.write(ours, parts)
        assert len(written) == parts
        torch.testing.assert_close(operation.read(written), ours, rtol=0, atol=0)


def test_rows_of_coco():
    assert len(USED_ROWS) == 80 and not set(USED_ROWS) & set(UNUSED_ROWS)
    rows = torch.arange(92.0)
    assert OPERATIONS['class_rows'].read([rows[:91]])[:12].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
    assert OPERATIONS['object_rows'].read([rows[:91]]).tolist() == list(range(80))
    assert OPERATIONS['label_rows'].read([rows])[-1] == 90
    assert OPERATIONS['label_and_unknown_rows'].read([rows])[-2:].tolist() == [90, 91]
    never = OPERATIONS['class_rows'].write(torch.zeros(80), 1)[0]
    assert never[list(UNUSED_ROWS)].half().sigmoid().max() == 0


def test_swin_merging_is_that_of_two_layers_of_pixels():
    """mmdet unfolds pixels channel by channel, the published code takes them block by block."""
    channels, height, width = 3, 4, 6
    image = torch.randn(1, channels, height, width)
    blocks = [image[:, :, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    published = torch.cat(blocks, 1).flatten(2).transpose(1, 2)
    ours = torch.nn.functional.unfold(image, 2, stride=2).transpose(1, 2)
    weight = torch.randn(5, 4 * channels)
    torch.testing.assert_close(ours @ swin_merging(weight).T, published @ weight.T)


def test_second_names_must_agree():
    weights = weights_of(MANIFESTS['detrex_dino_r50_4scale'])
    family = families.recognised(weights, 'file')
    weights['class_embed.0.bias'] = weights['class_embed.0.bias'] + 1
    with pytest.raises(
        WeightsError, match=r'class_embed\.0\.bias .*two names of one tensor, but hold different values'
    ):
        naming.to_ours(weights, family)


def test_names_that_a_file_holds_once():
    """An averaged state has first names only, and safetensors hold a shared head once."""
    weights = weights_of(MANIFESTS['detrex_dino_r50_4scale'])
    family = families.recognised(weights, 'file')
    whole = naming.to_ours(weights, family).weights
    first = {name: value for name, value in weights.items() if not name.startswith('bbox_embed')}
    assert naming.to_ours(first, family).weights.keys() == whole.keys()
    weights = weights_of(MANIFESTS['hf_deformable_detr'])
    family = families.recognised(weights, 'file')
    whole = naming.to_ours(weights, family).weights
    once = {name: value for name, value in weights.items() if not re.match(r'(class|bbox)_embed\.[1-5]\.', name)}
    again = naming.to_ours(once, family)
    assert again.weights.keys() == whole.keys() and len(again.notes) == 2
    assert all(torch.equal(again.weights[name], whole[name]) for name in whole)


def test_nothing_known(tmp_path):
    with pytest.raises(WeightsError, match=r'holds 1 tensors \(0\.0 MB\), as some\.weight, names of no family known'):
        families.recognised({'some.weight': torch.ones(3)}, 'file')
    with pytest.raises(
        WeightsError, match=r'nearest is official_dino, of which transformer\.enc_out_class_embed\.weight'
    ):
        names = ('transformer.level_embed', 'transformer.tgt_embed.weight')
        families.recognised({name: torch.ones(3) for name in names}, 'file')
