"""Settings that a component does not take are named by their key, wherever they are met."""

import copy

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_stable.engine.console import build_runner
from mmdet_stable.models.detectors import StableDINO
from mmdet_stable.training.measure import measure
from mmdet_stable.utils.unknown_settings import UnknownSettingError, arguments_of, settings_named, unknown_settings
from tests.tools.command_line import CONFIG, run


@pytest.fixture(scope='module')
def digits():
    return Config.fromfile(CONFIG)


def changed(cfg, key, value=1):
    cfg = copy.deepcopy(cfg)  # as mmdet's detectors write into theirs
    cfg.merge_from_dict({key: value})
    return cfg


@pytest.mark.parametrize(
    'key,expected',
    [
        ('model.num_querys', 'model.num_querys=1: StableDINO does not take it; did you mean num_queries?'),
        ('model.nonsense', 'model.nonsense=1: StableDINO does not take it; known are .*, backbone, .*num_queries'),
        (
            'model.bbox_head.num_class',
            'num_class=1: StableDINOHead does not take it; did you mean num_classes?',
        ),
        ('model.backbone.dept', 'model.backbone.dept=1: .* does not take it; did you mean depth?'),
        ('model.encoder.layer_cfg.self_attn_cfg.num_head', 'self_attn_cfg.num_head=1: no component takes it there'),
        ('model.neck.kernel', 'model.neck.kernel=1: ChannelMapper does not take it; did you mean kernel_size?'),
    ],
)
def test_of_the_model(key, expected, digits):
    cfg = changed(digits, key)
    with pytest.raises(UnknownSettingError, match=expected) as caught, settings_named(cfg):
        MODELS.build(cfg.model)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).endswith('orrect it, or leave it out')


@pytest.mark.parametrize(
    'key,expected',
    [
        ('train_dataloader.dataset.anno_file', 'CocoDataset does not take it; did you mean ann_file?'),
        ('train_dataloader.dataset.pipeline.1.with_box', 'LoadAnnotations does not take it; did you mean with_bbox?'),
        ('optim_wrapper.optimizer.weight_deca', 'AdamW does not take it; did you mean weight_decay?'),
        ('default_hooks.checkpoint.intervall', 'does not take it; did you mean interval?'),
    ],
)
def test_of_other_components(key, expected, digits):
    (found,) = unknown_settings(changed(digits, key), key.rsplit('.', 1)[1])
    assert found.startswith(f'{key}=1: ') and expected in found


@pytest.mark.parametrize(
    'key,expected',
    [
        ('model.type', 'model.type=StableDINOO: no such component is registered; did you mean StableDINO? Correct it'),
        ('model.neck.type', 'model.neck.type=StableDINOO: no such component is registered; did you mean StableDINO'),
    ],
)
def test_components_that_are_not_registered(key, expected, digits):
    cfg = changed(digits, key, 'StableDINOO')
    with pytest.raises(UnknownSettingError) as caught, settings_named(cfg):
        MODELS.build(cfg.model)
    assert str(caught.value).startswith(expected)


def test_settings_of_the_same_name_that_are_taken_are_not_blamed(digits):
    cfg = changed(digits, 'model.num_classes', 3)
    assert [line.split('=')[0] for line in unknown_settings(cfg, 'num_classes')] == ['model.num_classes']


def test_errors_of_other_causes_stay_what_they_are(digits):
    for error in (
        TypeError("f() got an unexpected keyword argument 'elsewhere'"),
        TypeError('no number'),
        KeyError('a'),
    ):
        with pytest.raises(type(error)) as caught, settings_named(digits):
            raise error
        assert caught.value is error


def test_arguments_of_parents_count_as_far_as_they_are_handed_on():
    class Closed:
        def __init__(self, a, *, b=1):
            pass

    class Open(Closed):
        def __init__(self, *args, c, **kwargs):
            pass

    class Above(Open):
        def __init__(self, d=1):
            pass

    assert arguments_of(Open) == ['c', 'a', 'b'] and arguments_of(Above) == ['d']
    assert {'num_queries', 'bbox_head', 'init_cfg', 'as_two_stage'} <= set(arguments_of(StableDINO))


def test_while_measuring_and_in_the_runner(digits, tmp_path):
    cfg = changed(digits, 'model.num_querys')
    cfg.work_dir = str(tmp_path)
    cfg.visualizer.pop('name')  # else runners of later tests would log into this folder
    for build in (measure, build_runner):
        with pytest.raises(UnknownSettingError, match=r'model\.num_querys=1: StableDINO does not take it'):
            build(copy.deepcopy(cfg))


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_in_the_tools(tool, tmp_path):
    from mmdet_stable.datasets import write_digit_scenes

    data = write_digit_scenes(tmp_path / 'scenes', num_train=1, num_val=1)
    annotations = data / 'annotations' / 'instances_val.json'
    settings = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    settings += [f'{split}_evaluator.ann_file={annotations}' for split in ('val', 'test')]
    arguments = ['none.pth'] if tool == 'test' else []
    arguments += ['--work-dir', tmp_path / 'w', '--cfg-options', *settings, 'model.num_querys=1']
    output = run('python', f'tools/{tool}.py', CONFIG, *arguments, check=False)
    assert output.splitlines()[-1].startswith(
        'error: model.num_querys=1: StableDINO does not take it; did you mean num'
    )
    assert 'Traceback' not in output
