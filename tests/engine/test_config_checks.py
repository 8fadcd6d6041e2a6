"""Typos in config keys are found where mmengine merges dicts, and no config that is right is warned of."""

import copy
import sys

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mmdet_stable.engine.config_checks import check_keys, unknown_keys
from mmdet_stable.engine.launch import argument_parser, load_config
from tests.tools.command_line import CONFIG, run
from tests.utils import ROOT

CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
MMDETS = (
    'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'yolox/yolox_s_8xb8-300e_coco.py',
    'objects365/faster-rcnn_r50_fpn_16xb4-1x_objects365v1.py',
    'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_configs_of_this_package_are_clean(path):
    assert unknown_keys(Config.fromfile(path)) == []


@pytest.mark.parametrize('name', MMDETS)
def test_configs_of_mmdet_are_clean(name):
    assert unknown_keys(get_config(f'mmdet::{name}')) == []


@pytest.fixture(scope='module')
def clean():
    return Config.fromfile(ROOT / 'configs' / 'stable_dino_r50_12e.py')


@pytest.mark.parametrize(
    'key,value,expected',
    [
        ('train_cfgg', dict(max_epochs=1), 'train_cfgg: nothing reads it; did you mean train_cfg?'),
        ('optim_wraper', dict(), 'did you mean optim_wrapper?'),
        ('custom_hook', [], 'did you mean custom_hooks?'),
        ('Model', dict(), 'did you mean model?'),
        ('test_dataloder', dict(), 'did you mean test_dataloader?'),
        ('loadfrom', 'a.pth', 'did you mean load_from?'),
        (
            'model.test_cfg.max_per_image',
            5,
            'model.test_cfg.max_per_image: .* did you mean model.test_cfg.max_per_img?',
        ),
        ('model.test_cfg.score_thr', 0.3, 'model.test_cfg.score_thr: nothing reads it; known are .*max_per_img'),
        ('model.train_cfg.assinger', dict(), 'did you mean model.train_cfg.assigner?'),
        ('model.test_cfg.nms.iou_treshold', 0.5, 'did you mean model.test_cfg.nms.iou_threshold?'),
        ('model.dn_cfg.num_querys', 5, 'did you mean model.dn_cfg.num_queries?'),
        ('model.dn_cfg.group_cfg.num_group', 5, 'did you mean model.dn_cfg.group_cfg.num_groups?'),
        ('optim_wrapper.paramwise_cfg.custom_key', {}, 'did you mean optim_wrapper.paramwise_cfg.custom_keys?'),
        ('optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mul', 0.1, 'custom_keys.backbone.lr_mult?'),
        ('env_cfg.cudnn_benchmarks', True, 'did you mean env_cfg.cudnn_benchmark?'),
        ('auto_scale_lr.base_batchsize', 8, 'did you mean auto_scale_lr.base_batch_size?'),
        ('default_hooks.chekpoint.interval', 8, 'did you mean default_hooks.checkpoint?'),
        ('train_dataloader.dataset.filter_cfg.filter_empty', True, 'filter_cfg.filter_empty_gt?'),
        ('val_dataloader.dataset.metainfo.CLASSES', ('a',), 'did you mean val_dataloader.dataset.metainfo.classes?'),
    ],
)
def test_typos(clean, key, value, expected):
    cfg = copy.deepcopy(clean)
    cfg.merge_from_dict({key: value})
    (found,) = unknown_keys(cfg)
    assert key.rsplit('.', 1)[0] in found.key or found.key == key
    with pytest.raises(ValueError, match=expected):
        check_keys(cfg, (), (), strict=True)


def test_data_sets_in_wrappers(clean):
    cfg = copy.deepcopy(clean)
    inner = dict(type='CocoDataset', metainfo=dict(clases=('a',)))
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner, dict(inner, metainfo=dict())])
    )
    (found,) = unknown_keys(cfg)
    assert found.key == 'train_dataloader.dataset.dataset.datasets[0].metainfo.clases'


def test_nms_of_a_head_that_has_none():
    cfg = get_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    cfg.model.test_cfg.nms = dict(type='nms', iou_threshold=0.8)
    (found,) = unknown_keys(cfg)
    assert str(found).startswith('model.test_cfg.nms: DINOHead does not read it; take a head of mmdet_stable')


@pytest.mark.parametrize(
    'name,value',
    [
        *(('dataset_type', 'CocoDataset'), ('data_root', 'data/'), ('backend_args', None), ('max_epochs', 3)),
        *(('test_pipeline', []), ('train_dataset', {}), ('num_levels', 5), ('val_evaluator_abs', {}), ('mode', 'fast')),
        *(('classes', ('a',)), ('_model', {}), ('base_lr', 0.1), ('img_scale', (1, 2)), ('widths', [3])),
    ],
)
def test_variables_of_users_are_left_alone(clean, name, value):
    cfg = copy.deepcopy(clean)
    cfg[name] = value
    assert unknown_keys(cfg) == []


def load(tmp_path, *options, text='variable = 3', strict=()):
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = {str(ROOT / "configs" / "stable_dino_r50_12e.py")!r}\n{text}\n')
    return load_config(argument_parser('').parse_args([str(path), *strict, '--cfg-options', 'work_dir=w', *options]))


@pytest.mark.parametrize(
    'option,expected',
    [
        ('train_cfgg.max_epochs=1', '--cfg-options train_cfgg.max_epochs: train_cfgg is no key .* mean train_cfg?'),
        ('batch_size=4', 'batch_size is no key of the config; set .*train_dataloader.batch_size and '),
        ('max_epochs=1', 'max_epochs is a variable of the config file, .* old value; set train_cfg.max_epochs'),
        ('data_root=x', 'data_root is a variable of .*set .*train_dataloader.dataset.data_root'),
        ('variable=1', 'variable is a variable of .* old value; leave it out'),
        ('something=1', 'something is no key of the config; leave it out'),
        ('model.test_cfg.max_per_image=5', 'did you mean model.test_cfg.max_per_img?'),
    ],
)
def test_options_without_effect(tmp_path, capsys, option, expected):
    load(tmp_path, option)
    warned = capsys.readouterr().err
    with pytest.raises(ValueError, match=expected) as caught:
        load(tmp_path, option, strict=['--strict'])
    assert len(str(caught.value).splitlines()) == 2
    assert warned.startswith('*****') and str(caught.value).splitlines()[1] in warned


def test_options_with_effect(tmp_path, capsys):
    load(tmp_path, 'model.test_cfg.max_per_img=5', 'train_cfg.max_epochs=1', 'load_from=a.pth', strict=['--strict'])
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    'launcher,variable', [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')]
)
def test_only_the_first_process_warns(launcher, variable, capsys, monkeypatch):
    cfg = Config(dict(launcher=launcher, something=1))
    for rank, warned in (('0', True), ('1', False)):
        monkeypatch.setenv(variable, rank)
        check_keys(cfg, ['something'], set())
        assert ('something' in capsys.readouterr().err) == warned


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_tools_stop_when_strict(tool):
    arguments = ['none.pth'] if tool == 'test' else []
    options = ['--strict', '--cfg-options', 'model.test_cfg.max_per_image=5']
    output = run(sys.executable, f'tools/{tool}.py', CONFIG, *arguments, *options, check=False)
    assert 'did you mean model.test_cfg.max_per_img?' in output.splitlines()[-1]


def test_tools_check_the_model_first():
    options = ['--cfg-options', 'model.num_queries=2']
    output = run(sys.executable, 'tools/train.py', CONFIG, *options, check=False)
    assert output.splitlines()[-1].startswith('  model.test_cfg.max_per_img=30: there are fewer scores')
