"""Training that is interrupted, and checkpoints of every kind, through the tools."""

import json
import os
import sys

import pytest
import torch
from mmdet.apis import init_detector
from mmengine.config import Config

from tests.tools.command_line import CONFIG, options, run

TRAIN = (sys.executable, 'tools/train.py')


@pytest.fixture(scope='module')
def config(folder):
    """The demo with augmentation, loaded by two workers that persist."""
    path = folder / 'augmented.py'
    path.write_text(
        f"""
_base_ = '{CONFIG}'
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(80, 64), keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackDetInputs'),
        ]
    ),
)
default_hooks = dict(logger=dict(interval=1))
"""
    )
    return path


def settings(folder, epochs, **extra):
    extra = {'train_cfg.max_epochs': epochs, 'train_cfg.val_interval': 10, **extra}
    loader = [option for option in options(folder, **extra) if not option.startswith('train_dataloader.num_workers')]
    return [option for option in loader if not option.startswith('train_dataloader.persistent')]


def train(folder, config, name, epochs, *arguments, **extra):
    work_dir = folder / name
    return work_dir, run(*TRAIN, config, '--work-dir', work_dir, *arguments, *settings(folder, epochs, **extra))


def losses(work_dir):
    """Losses of every step, by epoch and iteration; of several runs, the later one's."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['step']] = record['loss']
    return found


def weights(path):
    return torch.load(path, map_location='cpu')['state_dict']


@pytest.fixture(scope='module')
def whole(folder, config):
    """Three epochs without interruption."""
    return train(folder, config, 'whole', 3)[0]


def test_resuming_continues_bit_for_bit(whole, folder, config):
    """The newest checkpoint is cut off, so it goes on from the one before, with a warning."""
    work_dir, _ = train(folder, config, 'interrupted', 2)
    newest = work_dir / 'epoch_2.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    _, output = train(folder, config, 'interrupted', 3, '--resume')
    assert f'{newest} is passed over' in output and 'resumed epoch: 1' in output
    for epoch in (2, 3):
        ours, theirs = (weights(path / f'epoch_{epoch}.pth') for path in (work_dir, whole))
        assert all(value.equal(theirs[name]) for name, value in ours.items())
    assert losses(work_dir) == losses(whole) and len(losses(whole)) == 12


def test_a_checkpoint_that_is_named_must_be_whole(whole, folder, config):
    broken = folder / 'broken.pth'
    broken.write_bytes((whole / 'epoch_1.pth').read_bytes()[:-1000])
    arguments = ['--work-dir', folder / 'named', '--resume', broken, *settings(folder, 3)]
    output = run(*TRAIN, config, *arguments, check=False)
    assert f'ValueError: {broken} is cut off, damaged' in output and 'Epoch(train)' not in output


def test_work_dir_that_cannot_be_written(folder, config):
    (folder / 'file').touch()
    output = run(*TRAIN, config, '--work-dir', folder / 'file' / 'x', *settings(folder, 1), check=False)
    assert f'work dir {folder / "file" / "x"} cannot be written to; choose another by --work-dir' in output


def test_a_disk_that_fills_up(whole, folder, config):
    """A shell in which no file may exceed 2 MB: the second epoch cannot be saved, the first stays as it was."""
    work_dir, _ = train(folder, config, 'full', 1)
    before = (work_dir / 'epoch_1.pth').read_bytes()
    command = [*TRAIN, config, '--work-dir', work_dir, '--resume', *settings(folder, 2)]
    output = run('bash', '-c', 'ulimit -f 2048; exec "$@"', 'bash', *command, check=False)
    assert 'resumed epoch: 1' in output and f'to {work_dir / "epoch_2.pth"}. Earlier files are intact' in output
    assert (work_dir / 'epoch_1.pth').read_bytes() == before and not (work_dir / 'epoch_2.pth').exists()
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_1.pth')


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def hostile(kind, path, whole, target):
    """Write a file that is no fitting checkpoint; returns what the error must say."""
    good = (whole / 'epoch_1.pth').read_bytes()
    if kind == 'payload':
        torch.save(dict(state_dict=Payload(target)), path)
        return 'asks to run code; nothing of it was run'
    if kind == 'truncated':
        path.write_bytes(good[: len(good) // 2])
    elif kind == 'text':
        path.write_text('not a checkpoint')
    elif kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'list':
        torch.save([1, 2], path)
        return 'holds a list'
    elif kind == 'no_tensors':
        torch.save(dict(meta={}), path)
        return 'holds no tensors by name'
    elif kind == 'other_model':
        torch.save(dict(state_dict=torch.nn.Linear(2, 2).state_dict()), path)
        return 'holds none of the weights of StableDINO'
    elif kind == 'other_shape':
        checkpoint = torch.load(whole / 'epoch_1.pth')
        checkpoint['state_dict']['query_embedding.weight'] = torch.zeros(7, 128)
        torch.save(checkpoint, path)
        return 'query_embedding.weight: (7, 128) in the checkpoint, (40, 128) in the model'
    elif kind == 'other_classes':
        checkpoint = torch.load(whole / 'epoch_1.pth')
        checkpoint['state_dict']['bbox_head.cls_branches.0.weight'] = torch.zeros(3, 128)
        torch.save(checkpoint, path)
        return 'bbox_head.cls_branches.0.weight: (3, 128) in the checkpoint, (10, 128) in the model'
    return str(path)


KINDS = ['payload', 'truncated', 'text', 'empty', 'list', 'no_tensors', 'other_model', 'other_shape', 'other_classes']


@pytest.mark.parametrize('kind', KINDS)
def test_hostile_checkpoints_in_the_inferencer(kind, whole, tmp_path):
    path, target = tmp_path / 'c.pth', tmp_path / 'ran'
    message = hostile(kind, path, whole, target)
    with pytest.raises(ValueError) as error:
        init_detector(Config.fromfile(whole / 'augmented.py'), str(path), device='cpu')
    assert message in str(error.value) and not target.exists()


def test_hostile_checkpoints_in_the_tools(whole, folder, config, tmp_path):
    """One kind for each way in."""
    target = tmp_path / 'ran'
    ways = {
        'payload': ('tools/test.py', config, tmp_path / 'payload'),
        'truncated': ('tools/train.py', config, '--resume', tmp_path / 'truncated'),
    }
    for kind, command in ways.items():
        message = hostile(kind, tmp_path / kind, whole, target)
        arguments = ['--work-dir', folder / 'hostile', *settings(folder, 4)]
        output = run(sys.executable, *command, *arguments, check=False)
        assert 'ValueError: ' in output and message in output and not target.exists()
    hostile('payload', tmp_path / 'c.pth', whole, target)
    output = run(*TRAIN, config, *arguments, f'load_from={tmp_path / "c.pth"}', check=False)
    assert 'nothing of it was run' in output and not target.exists()
