"""Whole files: they fit the models of this package, compute what the reference did, and come back."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmdet_stable.weights import Published, WeightsError, convert, families, naming, read, to_ours, to_published
from mmdet_stable.weights.configs import text_of
from mmdet_stable.weights.conversion import model_of
from mmdet_stable.weights.tensors import USED_ROWS
from tests.utils import ROOT
from tests.weights.fixtures import FILES, manifests, raw_outputs, tiny_config, weights_of

MANIFESTS = manifests()
RECORDED = ['official_dino_tiny', 'official_dn_detr_tiny_legacy', 'detrex_stable_dino_tiny']
# The config that each model is built from, and what the converter had to change in its structure and sizes.
NAMED = {
    'detrex_conditional_detr_r50': 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'detrex_dab_deformable_detr_r50': 'deformable_detr/dab_deformable_detr_r50_12e.py',
    'detrex_dab_detr_r50_3patterns': 'dn_detr/dab_detr_r50_50e.py',
    'detrex_dab_detr_r50_dc5': 'dn_detr/dab_detr_r50_50e.py',
    'detrex_deformable_detr_r50_refine': 'deformable_detr/deformable_detr_r50_12e.py',
    'detrex_detr_r50': 'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'detrex_dino_r101_4scale': 'dino/dino_r50_12e.py',
    'detrex_dino_swin_t_224': 'dino/dino_swin_t_12e.py',
    'detrex_dn_deformable_detr_r50': 'dn_detr/dn_deformable_detr_r50_50e.py',
    'detrex_dn_detr_r50': 'dn_detr/dn_detr_r50_50e.py',
    'hf_deformable_detr': 'deformable_detr/deformable_detr_r50_12e.py',
    'maskdino_r50_1024': 'mask_dino/mask_dino_r50_hid1024_50e.py',
    'maskdino_r50_2048': 'mask_dino/mask_dino_r50_50e.py',
    'maskdino_r50_panoptic': 'mask_dino/mask_dino_panoptic_r50_50e.py',
    'official_deformable_detr_r50_single_scale': 'deformable_detr/deformable_detr_one_level_r50_50e.py',
    'official_dino_r50_5scale': 'dino/dino_5scale_r50_12e.py',
    'official_dn_detr_r50_dc5_3pat': 'dn_detr/dn_detr_r50_50e.py',
    'official_h_deformable_detr_r50': 'deformable_detr/h_deformable_detr_r50_12e.py',
    'stable_dino_r50': 'stable_dino_r50_12e.py',
}
SLOW = {  # larger, or like one of those above
    'detrex_dab_detr_r50': 'dn_detr/dab_detr_r50_50e.py',
    'detrex_dab_detr_r101': 'dn_detr/dab_detr_r50_50e.py',
    'detrex_dab_detr_swin_t': 'dn_detr/dab_detr_r50_50e.py',
    'detrex_deformable_detr_r50': 'deformable_detr/deformable_detr_r50_12e.py',
    'detrex_deformable_detr_r50_two_stage': 'deformable_detr/deformable_detr_r50_12e.py',
    'detrex_dino_r50_4scale': 'dino/dino_r50_12e.py',
    'detrex_dino_r50_5scale': 'dino/dino_5scale_r50_12e.py',
    'detrex_dino_swin_l_224_4scale': 'dino/dino_swin_l_12e.py',
    'detrex_dino_swin_l_384_4scale': 'dino/dino_swin_l_12e.py',
    'detrex_dino_swin_l_384_5scale': 'dino/dino_5scale_swin_l_12e.py',
    'detrex_dn_detr_r50_dc5': 'dn_detr/dn_detr_r50_50e.py',
    'detrex_h_deformable_detr_r50_two_stage': 'deformable_detr/h_deformable_detr_r50_12e.py',
    'detrex_h_deformable_detr_swin_l': 'deformable_detr/h_deformable_detr_swin_l_12e.py',
    'detrex_h_deformable_detr_swin_l_900': 'deformable_detr/h_deformable_detr_swin_l_12e.py',
    'hf_conditional_detr': 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'hf_dab_detr': 'dn_detr/dab_detr_r50_50e.py',
    'hf_deformable_detr_refine': 'deformable_detr/deformable_detr_r50_12e.py',
    'hf_deformable_detr_two_stage': 'deformable_detr/deformable_detr_r50_12e.py',
    'maskdino_swin_l': 'mask_dino/mask_dino_swin_l_50e.py',
    'official_dab_deformable_detr_r50': 'deformable_detr/dab_deformable_detr_r50_12e.py',
    'official_dab_detr_r50': 'dn_detr/dab_detr_r50_50e.py',
    'official_dab_detr_r50_3pat': 'dn_detr/dab_detr_r50_50e.py',
    'official_deformable_detr_r50': 'deformable_detr/deformable_detr_r50_12e.py',
    'official_deformable_detr_r50_refine': 'deformable_detr/deformable_detr_r50_12e.py',
    'official_deformable_detr_r50_two_stage': 'deformable_detr/deformable_detr_r50_12e.py',
    'official_detr_r50': 'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'official_dino_r50_4scale': 'dino/dino_r50_12e.py',
    'official_dino_swin_l_4scale': 'dino/dino_swin_l_12e.py',
    'official_dino_swin_l_5scale': 'dino/dino_5scale_swin_l_12e.py',
    'official_dn_deformable_detr_r50': 'dn_detr/dn_deformable_detr_r50_50e.py',
    'official_dn_detr_r50': 'dn_detr/dn_detr_r50_50e.py',
    'official_h_deformable_detr_swin_l_900': 'deformable_detr/h_deformable_detr_swin_l_12e.py',
    'stable_dino_swin_l': 'stable_dino_swin_l_12e.py',
}


@pytest.mark.parametrize(
    'name,config',
    [*NAMED.items(), *(pytest.param(*item, marks=pytest.mark.stress) for item in SLOW.items())],
)
def test_published_models_fit_the_named_config(name, config):
    """All names and shapes of the model of the written config, no more and no less; of full size."""
    converted = to_ours(Published(Path(name), weights_of(MANIFESTS[name])), dc5='dc5' in name or None)
    assert converted.report.config == config
    assert not converted.report.fresh and not converted.report.left_over
    expected = {key: value.shape for key, value in model_of(converted.cfg).state_dict().items()}
    assert {key: value.shape for key, value in converted.weights.items()} == expected


def test_every_published_model_is_listed():
    unsupported = {name for name in MANIFESTS if re.search('two_stage$|dab_dino|encoder_only', name)} - set(SLOW)
    assert set(NAMED) | set(SLOW) | unsupported == set(MANIFESTS)


def semantic_mask_dino(num_classes, background=1, num_queries=100):
    """Names and shapes of a MaskDINO of learned queries; no list of its names is published."""
    weights = weights_of(MANIFESTS['maskdino_r50_1024'])
    weights = {name: tensor for name, tensor in weights.items() if 'enc_output' not in name}
    head = 'sem_seg_head.predictor.'
    weights[f'{head}query_feat.weight'] = torch.ones(num_queries, 1).expand(-1, 256)
    weights[f'{head}query_embed.weight'] = torch.ones(num_queries, 4)
    weights[f'{head}class_embed.weight'] = torch.ones(num_classes + background, 256)
    weights[f'{head}class_embed.bias'] = torch.ones(num_classes + background)
    weights[f'{head}label_enc.weight'] = torch.ones(num_classes, 256)
    weights['criterion.empty_weight'] = torch.ones(num_classes + 1)
    return weights


@pytest.mark.parametrize(
    'num_classes,background,num_queries,config',
    [
        (150, 1, 100, 'mask_dino/mask_dino_ade20k_r50_160k.py'),
        (19, 1, 100, 'mask_dino/mask_dino_cityscapes_r50_90k.py'),
        (40, 1, 30, 'mask_dino/mask_dino_ade20k_r50_160k.py'),
        (150, 0, 100, 'mask_dino/mask_dino_ade20k_r50_160k.py'),
    ],
)
def test_semantic_mask_dino(num_classes, background, num_queries, config):
    """Classes may or may not have one for background, which the config's loss says."""
    weights = semantic_mask_dino(num_classes, background, num_queries)
    converted = to_ours(Published(Path('semantic.pth'), weights))
    assert (converted.report.family, converted.report.config) == ('maskdino_semantic', config)
    model = converted.cfg.model
    assert (model.num_queries, model.bbox_head.num_classes) == (num_queries, num_classes)
    assert model.bbox_head.loss_cls.use_sigmoid is not bool(background)
    again, _ = to_published(Published(Path('ours.pth'), converted.weights), 'detrex')
    assert {name: tensor.shape for name, tensor in again.items()} == {n: t.shape for n, t in weights.items()}
    own = to_ours(Published(Path('ours.pth'), converted.weights))  # our names are recognised, too
    assert own.cfg.model.bbox_head.num_classes == num_classes and own.weights.keys() == converted.weights.keys()


def test_what_weights_of_mask_dino_do_not_show():
    """Where boxes start, and how many queries there are, is said in the report, unless it was asked for."""
    published = Published(Path('mask_dino.pth'), weights_of(MANIFESTS['maskdino_r50_2048']))
    report = to_ours(published).report
    assert not [entry for entry in report.settings if not entry.key.endswith('Resize.backend')]
    assert "do not show model.num_queries=300, model.initialize_box_type='mask2box'" in str(report)
    settings = {'model.initialize_box_type': 'no', 'model.num_queries': 100}
    converted = to_ours(published, settings=settings)
    assert 'do not show' not in str(converted.report) and converted.cfg.model.num_queries == 100


def test_mask_dino_starts_a_stable_one():
    published = Published(Path('mask_dino.pth'), weights_of(MANIFESTS['maskdino_r50_2048']))
    converted = to_ours(published, 'mask_dino/stable_mask_dino_r50_12e.py')
    assert converted.report.fresh and all(name.startswith('neck.encoder.fusion.') for name in converted.report.fresh)
    whole = model_of(converted.cfg).state_dict()
    with pytest.raises(WeightsError, match='official has no stable_mask_dino'):
        to_published(Published(Path('stable.pth'), whole), 'official')


def test_mask_dino_of_another_kind():
    weights = semantic_mask_dino(150)
    weights.update({f'sem_seg_head.predictor.enc_output.{name}': torch.ones(256) for name in ('weight', 'bias')})
    with pytest.raises(WeightsError, match=r'learned content of queries \(LEARN_TGT\), which cannot be converted'):
        to_ours(Published(Path('other.pth'), weights))
    weights = semantic_mask_dino(150)
    del weights['sem_seg_head.predictor.query_embed.weight']
    with pytest.raises(WeightsError, match='without learned boxes, which cannot be converted'):
        to_ours(Published(Path('other.pth'), weights))
    with pytest.raises(WeightsError, match=r'model\.neck\.num_levels=4, but the weights need 3'):
        to_ours(Published(Path('other.pth'), semantic_mask_dino(150)), 'mask_dino/mask_dino_r50_50e.py')


def written_config(tmp_path, file):
    path = tmp_path / 'tiny.py'
    path.write_text(text_of(tiny_config(file)))
    return str(path)


@pytest.mark.parametrize('averaged', [False, True])
@pytest.mark.parametrize('file', RECORDED)
def test_recorded_outputs(tmp_path, file, averaged):
    """The checkpoint and the config that are written give what the reference gave."""
    if averaged and 'legacy' in file:
        pytest.skip('holds no moving average')
    report = convert(FILES / f'{file}.pth', tmp_path / 'ours.pth', written_config(tmp_path, file), averaged=averaged)
    assert [path.name for path in report.written] == ['ours.pth', 'ours.py']
    assert (tmp_path / 'ours.py').read_text().endswith(read(tmp_path / 'ours.pth').meta['cfg'])
    cfg = Config.fromfile(tmp_path / 'ours.py')
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(tmp_path / 'ours.pth'), strict=True)
    with np.load(FILES / f'{file}_expected.npz') as expected:
        logits, boxes = raw_outputs(model, expected['image'])
        wanted = expected['logits'] if file.startswith('detrex') else expected['logits'][..., list(USED_ROWS)]
        np.testing.assert_allclose(logits, wanted + 0.25 * averaged, rtol=0, atol=1e-5)
        np.testing.assert_allclose(boxes, expected['boxes'], rtol=0, atol=2e-6)


def test_the_written_config_says_what_was_changed(tmp_path):
    file = 'official_dino_tiny'
    report = convert(FILES / f'{file}.pth', tmp_path / 'ours.pth', written_config(tmp_path, file))
    changed = {entry.key: entry.value for entry in report.settings}
    assert changed['model.neck.bias'] is True
    assert changed['model.positional_encoding.temperature'] == 20 and changed['model.positional_encoding.offset'] == 0
    assert changed['model.bbox_head.sigmoid_eps'] == changed['model.decoder.sigmoid_eps'] == 1e-3
    text = (tmp_path / 'ours.py').read_text()
    assert (
        text.startswith(f'# Config of {file}.pth (official_dino)') and '#   model.neck.bias = True (was False' in text
    )
    resize = Config.fromfile(tmp_path / 'ours.py').test_dataloader.dataset.pipeline[1]
    assert resize.type == 'Resize' and resize.backend == 'pillow'
    words = str(report)
    assert 'ema_model (--ema takes the moving average)' in words
    assert 'without rows 0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83, which are no category of COCO: ' in words


def test_what_a_file_says_of_its_training_counts(tmp_path):
    """Arguments of the command line, where they are kept, and the config in mmengine's checkpoints."""
    file = 'official_dino_tiny'
    published = read(FILES / f'{file}.pth')
    published.args.update(pe_temperatureH=7)
    cfg = to_ours(published, written_config(tmp_path, file)).cfg
    assert cfg.model.positional_encoding.temperature == 7
    ours = to_ours(read(FILES / f'{file}.pth'), written_config(tmp_path, file)).weights
    for text, temperature, offset in (
        ('model = dict(positional_encoding=dict(num_feats=128, normalize=True, temperature=9))', 9, 0.0),
        ('model = dict(positional_encoding=dict(offset=-0.5))', 10000, -0.5),
        ('not python', 20, 0.0),  # mmdet's DINO
    ):
        config = to_ours(Published(Path('ours.pth'), ours, meta=dict(cfg=text)), written_config(tmp_path, file)).cfg
        assert config.model.positional_encoding.temperature == temperature
        assert config.model.positional_encoding.offset == offset


@pytest.mark.parametrize(
    'to,file', [('detrex', 'detrex_stable_dino_tiny'), ('official', 'official_dn_detr_tiny_legacy')]
)
def test_round_trips(tmp_path, to, file):
    """Ours to published names and back is equal bit for bit; so is the published file, but for rows of no category."""
    config = written_config(tmp_path, file)
    convert(FILES / f'{file}.pth', tmp_path / 'ours.pth', config)
    convert(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', to=to)
    convert(tmp_path / 'theirs.pth', tmp_path / 'again.pth', config)
    first, again = (read(tmp_path / name).weights for name in ('ours.pth', 'again.pth'))
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    original, theirs = read(FILES / f'{file}.pth').weights, read(tmp_path / 'theirs.pth').weights
    assert original.keys() == theirs.keys()
    for name, tensor in original.items():
        rows = list(USED_ROWS) if tensor.dim() and len(tensor) in (91, 92) else ...
        assert torch.equal(theirs[name][rows], tensor[rows]), name


def of_one_to_many(rows):
    weights = weights_of(MANIFESTS['official_h_deformable_detr_r50'])
    return {**weights, 'query_embed.weight': torch.ones(rows, 1).expand(-1, 256)}


def test_one_to_many_queries_are_those_that_the_file_tells():
    """Their number is not always 1500: the arguments of the training say it, or the config in the checkpoint."""
    args = dict(num_queries_one2one=300, num_queries_one2many=200)
    first = to_ours(Published(Path('h_detr.pth'), of_one_to_many(500), args=args))
    assert first.report.family == 'official_h_deformable_detr'
    assert (first.cfg.model.num_queries, first.cfg.model.one_to_many.num_queries) == (300, 200)
    again = Published(Path('ours.pth'), first.weights, meta=dict(cfg=text_of(first.cfg)))
    assert to_ours(again).cfg.model.one_to_many.num_queries == 200
    assert to_published(again, 'official')[1].target == 'official_h_deformable_detr'
    none = families.one_to_many_queries(dict(num_queries_one2many=0), {})
    assert families.recognised(of_one_to_many(1800), 'file', none).name == 'official_deformable_detr'


def test_one_to_many_queries_of_a_given_config(tmp_path):
    """Where the file does not tell their number, that of the config counts."""
    cfg = Config.fromfile(ROOT / 'configs/deformable_detr/h_deformable_detr_r50_12e.py')
    cfg.model.one_to_many.num_queries = 200
    (tmp_path / 'h.py').write_text(text_of(cfg))
    config = str(tmp_path / 'h.py')
    converted = to_ours(Published(Path('h_detr.pth'), of_one_to_many(500)), config)
    assert (converted.cfg.model.num_queries, converted.cfg.model.one_to_many.num_queries) == (300, 200)
    with pytest.raises(WeightsError, match='num_queries=300, but the weights need 100'):
        to_ours(Published(Path('h_detr.pth'), of_one_to_many(300)), config)


def test_one_to_many_queries_of_our_own_detectors(tmp_path):
    """No config that comes with the package has any besides H-DETR's: another detector would be made of them."""
    file = 'detrex_stable_dino_tiny'
    converted = to_ours(read(FILES / f'{file}.pth'), written_config(tmp_path, file))
    converted.cfg.model.update(num_queries=15, one_to_many=dict(num_queries=5, num_copies=2))
    converted.cfg.model.test_cfg.max_per_img = 100
    published = Published(Path('ours.pth'), converted.weights, meta=dict(cfg=text_of(converted.cfg)))
    with pytest.raises(WeightsError, match=r'5 of the queries are for one-to-many matching.* give the CONFIG'):
        to_ours(published)
    (tmp_path / 'own.py').write_text(text_of(converted.cfg))
    assert to_ours(published, str(tmp_path / 'own.py')).cfg.model.num_queries == 15


def test_number_of_queries_that_are_not_learned():
    """Two-stage Deformable-DETR takes any number of proposals; the arguments of the training say how many."""
    weights = weights_of(MANIFESTS['official_deformable_detr_r50_two_stage'])
    converted = to_ours(Published(Path('two_stage.pth'), weights, args=dict(num_queries=100)))
    assert converted.cfg.model.num_queries == 100 and 'do not show' not in str(converted.report)


def test_attention_heads_of_our_own_checkpoints(tmp_path):
    """Shapes do not show their number; the config in the checkpoint does."""
    file = 'detrex_stable_dino_tiny'
    convert(FILES / f'{file}.pth', tmp_path / 'ours.pth', written_config(tmp_path, file))
    model = to_ours(read(tmp_path / 'ours.pth')).cfg.model
    assert model.decoder.layer_cfg.cross_attn_cfg.num_heads == 2
    assert model.encoder.layer_cfg.self_attn_cfg.get('num_points', 4) == 4


def test_label_embeddings_with_more_rows_than_classes(tmp_path):
    """The official DINO's own setting, which is 91 whatever the data; rows behind the classes are never read."""
    file = 'official_dino_tiny'
    published = read(FILES / f'{file}.pth')
    labels = published.weights['label_enc.weight']
    assert len(labels) == 92
    for name, tensor in published.weights.items():
        if 'class_embed' in name:
            published.weights[name] = tensor[:15]
    cfg = tiny_config(file)
    cfg.model.bbox_head.num_classes = 15
    (tmp_path / 'tiny.py').write_text(text_of(cfg))
    converted = to_ours(published, str(tmp_path / 'tiny.py'))
    assert torch.equal(converted.weights['dn_query_generator.label_embedding.weight'], labels[:15])
    assert 'without rows 15 to 91 of label_enc.weight, as there are 15 classes' in str(converted.report)


def test_activations_without_weights(tmp_path):
    """Names do not show them: what the file says counts, and otherwise the config."""
    file = 'official_dino_tiny'
    published = read(FILES / f'{file}.pth')
    cfg = tiny_config(file)
    for part in (cfg.model.encoder, cfg.model.decoder):
        part.layer_cfg.ffn_cfg.act_cfg = dict(type='GELU')
    (tmp_path / 'gelu.py').write_text(text_of(cfg))
    converted = to_ours(published, str(tmp_path / 'gelu.py'))
    assert converted.cfg.model.decoder.layer_cfg.ffn_cfg.act_cfg.type == 'GELU'
    kept = Published(Path('ours.pth'), converted.weights, meta=dict(cfg=text_of(converted.cfg)))
    assert to_ours(kept, written_config(tmp_path, file)).cfg.model.encoder.layer_cfg.ffn_cfg.act_cfg.type == 'GELU'
    published.args.update(transformer_activation='gelu')
    with pytest.raises(WeightsError, match="transformer_activation='gelu', say the arguments of the training"):
        to_ours(published, written_config(tmp_path, file))


def test_suffix_of_our_checkpoints(tmp_path):
    file = 'official_dino_tiny'
    with pytest.raises(WeightsError, match=r'ours\.safetensors: checkpoints of this package are files of torch'):
        convert(FILES / f'{file}.pth', tmp_path / 'ours.safetensors', written_config(tmp_path, file))
    assert not list(tmp_path.glob('ours*'))


def test_weights_trained_with_prelu(tmp_path):
    """The default of the official scripts, which deformable configs do not have."""
    weights = weights_of(MANIFESTS['official_deformable_detr_r50_two_stage'])
    for part in ('encoder', 'decoder'):
        weights.update({f'transformer.{part}.layers.{layer}.activation.weight': torch.ones(1) for layer in range(6)})
    cfg = Config.fromfile(ROOT / 'configs/deformable_detr/deformable_detr_r50_12e.py')
    for part in (cfg.model.encoder, cfg.model.decoder):
        part.layer_cfg.ffn_cfg.update(act_cfg=dict(type='ReLU', inplace=True), feedforward_channels=1024)
    (tmp_path / 'relu.py').write_text(text_of(cfg))
    for config in (None, str(tmp_path / 'relu.py')):
        converted = to_ours(Published(Path('prelu.pth'), weights), config)
        assert converted.cfg.model.encoder.layer_cfg.ffn_cfg.act_cfg == dict(type='PReLU')
        assert 'encoder.layers.0.ffn.layers.0.1.weight' in converted.weights


def test_dino_starts_a_stable_dino(tmp_path):
    """Only the fusion starts afresh, and the report says so; without fusion it is the same detector."""
    file = 'official_dino_tiny'
    cfg = tiny_config(file)
    cfg.model.encoder.fusion = dict(type='DenseMemoryFusion')
    (tmp_path / 'stable.py').write_text(text_of(cfg))
    report = convert(FILES / f'{file}.pth', tmp_path / 'start.pth', str(tmp_path / 'stable.py'))
    assert report.fresh and all(name.startswith('encoder.fusion.') for name in report.fresh)
    assert 'the memory fusion starts afresh' in str(report)
    model = MODELS.build(Config.fromfile(tmp_path / 'start.py').model)
    missing = model.load_state_dict(torch.load(tmp_path / 'start.pth', weights_only=True)['state_dict'], strict=False)
    assert set(missing.missing_keys) == set(report.fresh)
    assert not missing.unexpected_keys


def test_neck_without_bias_goes_to_detrex_and_back(tmp_path):
    """mmdet's necks have none: they become zeros, which are left out on the way back."""
    file = 'detrex_stable_dino_tiny'
    cfg = tiny_config(file)
    torch.manual_seed(0)
    model = model_of(cfg)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'ours.pth')
    (tmp_path / 'tiny.py').write_text(text_of(cfg))
    report = convert(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', to='detrex')
    assert 'biases of zero for the convolutions of the neck' in str(report)
    again = convert(tmp_path / 'theirs.pth', tmp_path / 'again.pth', str(tmp_path / 'tiny.py'))
    assert 'without biases of the neck that are all zero' in str(again)
    loaded = read(tmp_path / 'again.pth').weights
    assert loaded.keys() == model.state_dict().keys()
    assert all(
        torch.equal(loaded[name], value) for name, value in model.state_dict().items() if 'num_batches' not in name
    )


def test_one_publisher_to_another(tmp_path):
    """A file of detrex gets the authors' names without a detour by hand."""
    weights = {name: tensor.contiguous() for name, tensor in weights_of(MANIFESTS['detrex_dn_detr_r50']).items()}
    renamed, report = to_published(Published(Path('dn_detr.pth'), weights), 'official')
    assert report.target == 'official_dn_detr' and report.family == 'detrex_dn_detr'
    assert set(renamed) == set(MANIFESTS['official_dn_detr_r50']['names'])


@pytest.mark.parametrize('suffix', ['.bin', '.safetensors'])
@pytest.mark.parametrize('model', ['hf_deformable_detr', 'hf_dab_detr', 'hf_conditional_detr'])
def test_huggingface_and_back(tmp_path, model, suffix):
    """Of all families whose names at HuggingFace are known; equal bit for bit, also under second names."""
    published = weights_of(MANIFESTS[model])
    ours = to_ours(Published(Path(model), published)).weights
    small = {name: tensor[tuple(slice(3) for _ in tensor.shape)].contiguous() for name, tensor in ours.items()}
    heads = [name for name in ours if '_branches' in name or 'fc_cls' in name]
    small.update({name: ours[name][:, :3].contiguous() if ours[name].dim() > 1 else ours[name] for name in heads})
    stacked = [name for name in ours if 'in_proj_' in name]
    small.update({name: ours[name][:, :3].contiguous() if ours[name].dim() > 1 else ours[name] for name in stacked})
    torch.save(dict(state_dict=small), tmp_path / 'ours.pth')
    report = convert(tmp_path / 'ours.pth', tmp_path / f'theirs{suffix}', to='huggingface')
    assert report.target == re.sub('_(refine|two_stage)$', '', model)
    theirs = read(tmp_path / f'theirs{suffix}')
    assert theirs.weights.keys() == published.keys() and theirs.taken == ''
    family = families.recognised(theirs.weights, 'file')
    again = naming.to_ours(theirs.weights, family).weights
    assert again.keys() == small.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in small.items() if 'num_batches' not in name)


def test_what_huggingface_does_not_have(tmp_path):
    weights = {name: tensor.contiguous() for name, tensor in weights_of(MANIFESTS['official_detr_r50']).items()}
    with pytest.raises(WeightsError, match='huggingface has no detr; of what is known here, it has conditional_detr'):
        to_published(Published(Path('detr.pth'), weights), 'huggingface')


def changed(tmp_path, file, change):
    content = torch.load(FILES / f'{file}.pth', weights_only=True)
    change(content['model'])
    torch.save(content, tmp_path / 'changed.pth')
    return tmp_path / 'changed.pth'


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda model: model.update(extra_branch=torch.ones(3)), '1 weights that it does not have: extra_branch'),
        (
            lambda model: model.pop('transformer.enc_output.weight'),
            r'1 weights of the model are not in the file: memory_trans_fc\.weight',
        ),
        (
            lambda model: model.update({'transformer.enc_output.weight': torch.ones(3, 32)}),
            r'1 have other shapes: memory_trans_fc\.weight: \(3, 32\) in the file, \(32, 32\) in the model',
        ),
    ],
    ids=['extra', 'missing', 'shape'],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    file = 'detrex_stable_dino_tiny'
    source = changed(tmp_path, file, change)
    with pytest.raises(WeightsError, match=f'(?s)detrex_stable_dino.*{message}'):
        convert(source, tmp_path / 'ours.pth', written_config(tmp_path, file))
    assert not (tmp_path / 'ours.pth').exists() and not (tmp_path / 'ours.py').exists()


def test_a_config_of_another_size_or_kind(tmp_path):
    config = written_config(tmp_path, 'detrex_stable_dino_tiny')
    cfg = Config.fromfile(config)
    cfg.model.num_queries, cfg.model.decoder.num_layers = 30, 3
    (tmp_path / 'other.py').write_text(text_of(cfg))
    expected = r'(?s)of another size.*num_queries=30, but the weights need 20.*Leave out CONFIG'
    with pytest.raises(WeightsError, match=expected):
        convert(FILES / 'detrex_stable_dino_tiny.pth', tmp_path / 'ours.pth', str(tmp_path / 'other.py'))
    for config, message in (
        (str(ROOT / 'configs/dn_detr/dn_detr_r50_50e.py'), 'of another size'),
        ('no_such_config.py', 'there is no such config'),
    ):
        with pytest.raises(WeightsError, match=message):
            convert(FILES / 'detrex_stable_dino_tiny.pth', tmp_path / 'ours.pth', config)
    with pytest.raises(WeightsError, match=r'32 wide, not 256 .* give the CONFIG of this model'):
        convert(FILES / 'detrex_stable_dino_tiny.pth', tmp_path / 'ours.pth')
    assert not (tmp_path / 'ours.pth').exists()


def test_a_part_that_lacks_a_weight_does_not_start_afresh(tmp_path):
    file = 'detrex_stable_dino_tiny'
    source = changed(tmp_path, file, lambda model: model.pop('transformer.encoder.fusion_layer.0.bias'))
    with pytest.raises(WeightsError, match=r'weights of the model are not in the file: encoder\.fusion\.fusion\.proj'):
        convert(source, tmp_path / 'ours.pth', written_config(tmp_path, file))


def test_weights_and_configs_of_no_detector(tmp_path):
    file = 'detrex_stable_dino_tiny'
    config = written_config(tmp_path, file)
    source = changed(tmp_path, file, lambda model: model.update({name: torch.tensor(1.0) for name in list(model)}))
    with pytest.raises(WeightsError, match='single numbers where weights of a detector have dimensions'):
        convert(source, tmp_path / 'ours.pth', config)
    with pytest.raises(WeightsError, match=r'retinanet.*builds a RetinaNet, but .*holds weights of detrex_stable_dino'):
        convert(FILES / f'{file}.pth', tmp_path / 'ours.pth', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    source = changed(tmp_path, file, lambda model: model.pop('transformer.decoder.layers.0.norms.0.weight'))
    with pytest.raises(WeightsError, match=r'not in the file: decoder\.layers\.0\.norms\.0\.weight'):
        convert(source, tmp_path / 'ours.pth', config)
    name = 'transformer.encoder.layers.0.norms.0.weight'  # which sizes are read from
    source = changed(tmp_path, file, lambda model: model.pop(name))
    with pytest.raises(WeightsError, match=r'lacks encoder\.layers\.0\.norms\.0\.weight, which every detector'):
        convert(source, tmp_path / 'ours.pth', config)
    assert not (tmp_path / 'ours.pth').exists()


def test_a_config_of_swin_knows_its_decoders_heads(tmp_path):
    """Not those of the backbone's stages, which stand first in it."""
    weights = weights_of(MANIFESTS['detrex_dino_swin_t_224'])
    converted = to_ours(Published(Path('swin.pth'), weights), 'dino/dino_swin_t_12e.py')
    assert converted.cfg.model.neck.bias


def test_our_own_checkpoints_tell_their_settings(tmp_path):
    """A converted file that goes on as another detector keeps what its weights do not show."""
    file = 'detrex_stable_dino_tiny'
    config = written_config(tmp_path, file)
    settings = {'model.positional_encoding.temperature': 7, 'model.positional_encoding.offset': 0.25}
    convert(FILES / f'{file}.pth', tmp_path / 'ours.pth', config, settings=settings)
    published = read(tmp_path / 'ours.pth')
    assert '7' in published.meta['cfg']
    model = to_ours(published, config).cfg.model
    assert (model.positional_encoding.temperature, model.positional_encoding.offset) == (7, 0.25)
    assert model.bbox_head.sigmoid_eps == model.decoder.sigmoid_eps == 1e-3
    weights = weights_of(MANIFESTS['detrex_dn_detr_r50_dc5'])
    first = to_ours(Published(Path('dc5.pth'), weights), dc5=True)
    again = to_ours(Published(Path('ours.pth'), first.weights, meta=dict(cfg=text_of(first.cfg))))
    assert again.cfg.model.backbone.type == 'DilatedResNet' and again.cfg.model.backbone.dilations[-1] == 2
    written, _ = to_published(Published(Path('ours.pth'), first.weights, meta=dict(cfg=text_of(first.cfg))), 'detrex')
    assert written.keys() == weights.keys()  # which are other ones where the backbone is not dilated


def test_unrelated_tensors(tmp_path):
    torch.save(dict(state_dict={'features.0.weight': torch.ones(2**18)}), tmp_path / 'vgg.pth')
    with pytest.raises(WeightsError, match=r'1 tensors \(1\.0 MB\), as features\.0\.weight, names of no family'):
        convert(tmp_path / 'vgg.pth', tmp_path / 'ours.pth')
    for file in ('ddp_prefix.pth', 'bare_state_dict.pth'):
        with pytest.raises(WeightsError, match='holds 5 tensors'):
            convert(FILES / file, tmp_path / 'ours.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['vgg.pth']


def test_detectors_that_a_publisher_does_not_have(tmp_path):
    config = written_config(tmp_path, 'detrex_stable_dino_tiny')
    convert(FILES / 'detrex_stable_dino_tiny.pth', tmp_path / 'ours.pth', config)
    for to, message in (
        ('mmdet', 'a stable_dino, which mmdet does not have'),
        ('official', 'official has no stable_dino'),
    ):
        with pytest.raises(WeightsError, match=message):
            convert(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', to=to)


def test_backbone_of_detectron2(tmp_path):
    report = convert(FILES / 'detectron2_backbone_tiny.pkl', tmp_path / 'backbone.pth')
    weights = read(tmp_path / 'backbone.pth').weights
    assert 'backbone.layer1.0.conv1.weight' in weights and 'backbone.bn1.running_var' in weights
    assert "prefix='backbone.'" in str(report) and not (tmp_path / 'backbone.py').exists()


def test_head_settings_can_be_asked_for(tmp_path):
    file = 'detrex_stable_dino_tiny'
    settings = {'model.test_cfg.nms': None, 'model.positional_encoding.temperature': 20}
    report = convert(FILES / f'{file}.pth', tmp_path / 'a.pth', written_config(tmp_path, file), settings=settings)
    cfg = Config.fromfile(tmp_path / 'a.py')
    assert cfg.model.test_cfg.nms is None and cfg.model.positional_encoding.temperature == 20
    assert [entry.why for entry in report.settings[-2:]] == ['asked for', 'asked for']
