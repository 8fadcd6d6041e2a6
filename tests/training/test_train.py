"""The command from data to report, on a few digit scenes in each layout, with a tiny model."""

import json
import logging
import shutil
import subprocess
import sys

import cv2
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.logging import MMLogger

import mmdet_stable
from mmdet_stable.__main__ import main
from mmdet_stable.datasets import DIGIT_CLASSES
from mmdet_stable.datasets.folder import data_statistics, read_data
from mmdet_stable.engine.config_checks import unknown_keys
from mmdet_stable.engine.launch import only_training
from mmdet_stable.evaluation.operating_point import OperatingPoint, kept_operating_point
from mmdet_stable.training.config_file import config_text, own_path, starting_point
from mmdet_stable.training.hardware import this_machine
from mmdet_stable.training.measure import measure
from mmdet_stable.training.plan import PlanError, Wishes, make_plan
from mmdet_stable.training.run import save_samples
from mmdet_stable.visualization.report import write_report
from tests.datasets.layouts import coco_scenes, voc_scenes, yolo_scenes
from tests.tools.command_line import run

SMALL = {
    'model.encoder.num_layers': 1,
    'model.decoder.num_layers': 1,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': [16, 32, 64],
}
OPTIONS = ['--image-size', '96', '--queries', '20', '--batch-size', '2', '--workers', '0']
POINT = OperatingPoint(0.25, 0.8, 0.6)
SETTINGS = dict(image_size=96, queries=20, batch_size=2, workers=0, backbone='resnet18_scratch')


def options(**more):
    settings = {**SMALL, **more}
    return ['--backbone', 'resnet18_scratch', *OPTIONS, '--cfg-options', *(f'{k}={v}' for k, v in settings.items())]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return coco_scenes(tmp_path_factory.mktemp('data') / 'scenes')


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('work') / 'digits'
    return mmdet_stable.train(scenes, epochs=1, seed=3, work_dir=work_dir, cfg_options=dict(SMALL), **SETTINGS)


def test_samples_name_the_image_that_cannot_be_read(scenes, tmp_path):
    own = shutil.copytree(scenes, tmp_path / 'own')
    dataset = dict(type='CocoDataset', ann_file=str(own / 'annotations' / 'instances_train.json'))
    dataset.update(data_prefix=dict(img=str(own / 'train')), pipeline=[dict(type='LoadImageFromFile')])
    dataset.update(metainfo=dict(classes=DIGIT_CLASSES))
    image = sorted((own / 'train').iterdir())[0]
    image.write_bytes(image.read_bytes()[:30])
    with pytest.raises(ValueError, match=image.name):
        save_samples(Config(dict(train_dataloader=dict(dataset=dataset))), 1, tmp_path / 'samples.jpg')


def test_what_a_training_leaves(trained):
    assert trained.config == own_path(trained.work_dir) and trained.config.is_file()
    assert trained.checkpoint.name.startswith('best_coco_bbox_mAP') and trained.checkpoint.is_file()
    assert (trained.work_dir / 'epoch_1.pth').is_file() and 'AP' in trained.metrics
    assert 'Training report' in trained.report.read_text()
    picture = cv2.imread(str(trained.work_dir / 'setup' / 'samples.jpg'))
    assert picture.shape[1] > 1000 and picture.std() > 20  # four columns, and something in them


def test_the_config_is_ordinary_and_gives_reasons(trained, scenes):
    text = trained.config.read_text()
    cfg = Config.fromfile(trained.config)
    assert not unknown_keys(cfg, variables=set(cfg))
    assert cfg.model.num_queries == 20 and cfg.model.bbox_head.num_classes == 10 and cfg.randomness.seed == 3
    assert cfg.train_dataloader.dataset.ann_file == str(scenes / 'annotations' / 'instances_train.json')
    assert cfg.train_dataloader.dataset.metainfo.classes == tuple('0123456789')
    assert len(set(cfg.val_dataloader.dataset.metainfo.palette)) == 10
    assert cfg.model.encoder.num_layers == 2  # --cfg-options are of one call
    assert not any(transform.type == 'RandomFlip' for transform in cfg.train_dataloader.dataset.pipeline)
    assert '# mirror images: a mirror image is something else' in text and '# queries: as asked for' in text
    assert all(len(line) <= 120 for line in text.splitlines() if "'/" not in line)


def test_resuming_by_the_command_and_going_on_by_the_tool(trained, capsys):
    longer = options(**{'train_cfg.max_epochs': 2})
    assert main(['train', 'scenes', '--work-dir', str(trained.work_dir), '--resume', *longer]) == 0
    output = capsys.readouterr()
    assert 'after epoch' in output.out and (trained.work_dir / 'epoch_2.pth').is_file()
    assert f'resuming as {trained.config} says: its data and settings count' in output.out
    settings = {**SMALL, 'train_cfg.max_epochs': 3}
    arguments = ['--resume', '--strict', '--cfg-options', *(f'{key}={value}' for key, value in settings.items())]
    run(sys.executable, 'tools/train.py', trained.config, *arguments)
    assert (trained.work_dir / 'epoch_3.pth').is_file()
    assert main(['train', 'scenes', '--work-dir', str(trained.work_dir)]) == 1
    assert 'has a training; resume it, or choose another' in capsys.readouterr().err


@pytest.mark.parametrize('layout', [yolo_scenes, voc_scenes], ids=['YOLO', 'VOC'])
def test_other_layouts_train_by_the_command(layout, scenes, tmp_path, monkeypatch, capsys):
    data = layout(scenes, tmp_path / 'mine')
    monkeypatch.chdir(tmp_path)
    assert main(['train', str(data), '--epochs', '1', *options()]) == 0
    output = capsys.readouterr().out
    assert (tmp_path / 'work_dirs' / 'mine' / 'report.html').is_file()
    expected = ('train: 4 images', 'checked: no faults', 'queries:', 'as asked for', 'pace:', 'AP ', 'report:')
    assert all(part in output for part in expected), output


def test_time_decides_the_epochs(scenes, tmp_path, capsys):
    """An hour of steps that take a moment: as many epochs as there are at most, of which one is trained."""
    arguments = ['train', str(scenes), '--work-dir', str(tmp_path / 'w'), '--time', '1h']
    assert main([*arguments, *options(**{'train_cfg.max_epochs': 1})]) == 0
    output = capsys.readouterr().out
    cfg = Config.fromfile(own_path(tmp_path / 'w'))
    assert cfg.train_cfg.max_epochs > 1 and f'{cfg.train_cfg.max_epochs} ' in output
    assert 'measured on the first steps, fit into 60.0 minutes' in output
    assert main([*arguments[:-3], str(tmp_path / 'v'), '--time', '1s', *options()]) == 1
    assert 'does not fit into 1 seconds. What would: time=' in capsys.readouterr().err
    assert not own_path(tmp_path / 'v').exists()  # so that --resume does not train for other epochs
    assert not own_path(tmp_path / 'w').with_name('draft.py').exists()


def test_measuring_again_in_one_process_says_nothing(recwarn):
    """As in a notebook: each time, only warnings of building are heard, as the training logs the rest again."""
    for number in range(2):
        with pytest.raises(AttributeError, match='model'):  # which is built after the logger
            measure(Config(dict(randomness=dict(seed=1))))
        assert {handler.level for handler in MMLogger.get_current_instance().handlers} == {logging.WARNING}
        MMLogger.get_instance(f'training {number} of the test')
    assert not [warning for warning in recwarn if 'MMLogger' in str(warning.message)]


def test_fine_tuning_a_checkpoint_with_its_config(trained, scenes, tmp_path):
    """The model is that of the checkpoint; the data, whose classes are others, are the new ones."""
    data = yolo_scenes(scenes, tmp_path / 'data')
    content = yaml.safe_load((data / 'data.yaml').read_text())
    content['names'][3] = 'three'
    (data / 'data.yaml').write_text(yaml.safe_dump(content))
    settings = dict(image_size=96, batch_size=2, workers=0, epochs=1)
    again = mmdet_stable.train(data, weights=str(trained.checkpoint), work_dir=tmp_path / 'w', **settings)
    cfg = Config.fromfile(again.work_dir / again.config.name)
    assert cfg.model.encoder.num_layers == 1 and cfg.load_from == str(trained.checkpoint)
    log = next(again.work_dir.glob('*/*.log')).read_text()
    assert 'Kept: 0, 1, 2, 4, 5, 6, 7, 8, 9' in log


def test_stopping_early_and_averaging(scenes, tmp_path, monkeypatch, capsys):
    """AP is 0 from the first epoch to the last: the learning rate drops after the second, the third is the last."""

    def finding(work_dirs, path, *arguments, **settings):
        written = write_report(work_dirs, path, *arguments, **settings)
        return written._replace(points={tmp_path / 'w' / 'best_coco_bbox_mAP_epoch_1.pth': POINT})

    monkeypatch.setattr('mmdet_stable.training.run.write_report', finding)
    arguments = ['train', str(scenes), '--work-dir', str(tmp_path / 'w'), '--epochs', '9', '--patience', '1']
    assert main([*arguments, '--average', 'ema', *options(**{'test_cfg.max_per_img': 1})]) == 0
    output = capsys.readouterr().out
    assert 'stopped after epoch 3: AP rose no more' in output and 'loading annotations' not in output
    assert 'from a score of 0.25 on, which `predict` shows, 80% of the boxes are right, and 60% of' in output
    assert kept_operating_point(tmp_path / 'w' / 'best_coco_bbox_mAP_epoch_1.pth') == POINT
    lines = map(json.loads, next((tmp_path / 'w').glob('*/vis_data/scalars.json')).read_text().splitlines())
    rates = {line['epoch']: line['lr'] for line in lines if 'epoch' in line}
    assert rates[3] == pytest.approx(0.1 * rates[2]) and 4 not in rates
    checkpoint = torch.load(tmp_path / 'w' / 'epoch_3.pth', weights_only=True)
    trained, averaged = checkpoint['ema_state_dict'], checkpoint['state_dict']
    name = 'bbox_head.cls_branches.0.weight'
    assert 0 < (averaged[name] - trained[f'module.{name}']).abs().max() < 0.1
    assert 'epoch_3.pth' not in (tmp_path / 'w' / 'report.html').read_text()  # but the best one


@pytest.mark.parametrize(
    'average,settings',
    [
        ('ema', dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.25, gamma=4)),  # 20 epochs of 2 steps
        ('swa', dict(type='EMAHook', ema_type='StochasticWeightAverage', begin_epoch=14)),
    ],
)
def test_averages_of_weights(average, settings, trained, scenes):
    data = read_data([scenes], trained.config.parent, seed=0)
    statistics = data_statistics(data)
    plan = make_plan(statistics, this_machine(), Wishes(epochs=20, batch_size=2, average=average), False)
    text = config_text(plan, data, statistics, trained.work_dir, 0, starting_point(plan))
    hooks = Config.fromstring(text, '.py').default_hooks
    assert hooks.average == settings and 'early_stopping' not in hooks


def test_weights_of_a_work_dir(trained, scenes, tmp_path):
    plan = make_plan(
        data_statistics(read_data([scenes], tmp_path, seed=0)),
        this_machine(),
        Wishes(weights=str(trained.work_dir)),
        False,
    )
    assert starting_point(plan) == (str(trained.work_dir / 'digits.py'), str(trained.checkpoint))
    (tmp_path / 'cut.pth').write_bytes(trained.checkpoint.read_bytes()[:-200])
    with pytest.raises(PlanError, match=r'weights=.*cut.pth is cut off, damaged'):
        starting_point(plan._replace(weights=str(tmp_path / 'cut.pth')))
    alone = shutil.copy(trained.checkpoint, tmp_path / 'mine.pth')
    (tmp_path / 'mine.py').write_text("_base_ = 'other.py'")
    with pytest.raises(PlanError, match=r'weights=.*mine.pth: .*mine.py has no "model", or inherits it'):
        starting_point(plan._replace(weights=str(alone)))


@pytest.mark.parametrize(
    'arguments,problem',
    [
        (['nowhere'], 'data do not exist'),
        (['{data}', '--time', 'soon'], 'time=soon: write it like'),
        (['{data}', '--time', '5m', '--epochs', '3'], 'time=5m decides the number of epochs'),
        (['{data}', '--resume'], 'has no training to resume'),
        (['{data}', '--weights', 'none'], 'no such file or folder, and no name of published weights'),
        (
            ['{data}', '--weights', '{data}/annotations/instances_train.json'],
            'If you trust whoever made them, add --trust',
        ),
        (
            ['{data}', '--weights', '{data}/annotations/instances_train.json', '--trust'],
            'is damaged, no checkpoint of torch',
        ),
        (['{data}', '--backbone', 'vgg'], 'backbone=vgg: backbones are'),
        (['{data}', '--cfg-options', 'work_dir=w'], 'cfg_options: leave out work_dir'),
        (
            ['{data}', '--cfg-options', 'train_dataloader.dataset.nonsense=1'],
            'dataset.nonsense=1: CocoDataset does not',
        ),
        (['nowhere', '--layer-decay', '2'], 'layer_decay=2'),
    ],
)
def test_what_does_not_work_out(arguments, problem, scenes, tmp_path, capsys):
    arguments = [argument.format(data=scenes) for argument in arguments]
    assert main(['train', *arguments, '--work-dir', str(tmp_path / 'w')]) == 1
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.rglob('*.pth'))


def test_a_training_that_runs_keeps_its_config(scenes, tmp_path):
    config = own_path(tmp_path / 'w')
    config.parent.mkdir(parents=True)
    config.write_text('# of the training that runs')
    running = only_training(tmp_path / 'w')
    with running, pytest.raises(BlockingIOError, match='another training writes into'):
        mmdet_stable.train(scenes, work_dir=tmp_path / 'w', **SETTINGS)
    assert [path.name for path in config.parent.iterdir()] == [config.name]
    assert config.read_text() == '# of the training that runs'


def test_importing_the_package_does_not_import_it():
    code = 'import sys, mmdet_stable; print(any(name.startswith("mmdet_stable.training") for name in sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == 'False'
    with pytest.raises(AttributeError, match="no attribute 'trains'"):
        mmdet_stable.trains  # noqa: B018


def test_a_slow_cpu_is_warned_of():
    from mmdet_stable.training.hardware import Hardware
    from mmdet_stable.training.measure import Pace
    from mmdet_stable.training.run import pace_lines
    from tests.training.test_plan import plan

    made, pace = plan(size='base', backbone='resnet50'), Pace(step=27.0, validation=60.0, steps=37)
    text = '\n'.join(pace_lines(made, pace, Hardware('cpu', 'CPU', 16.0, 2)))
    assert 'hours on this CPU; a GPU is made for it' in text
    assert '--time 1h: 2 epochs' in text and '--size tiny' in text and '--image-size' in text
    assert 'WARNING' not in '\n'.join(pace_lines(made, pace, Hardware('cuda', 'GPU', 16.0, 2)))
