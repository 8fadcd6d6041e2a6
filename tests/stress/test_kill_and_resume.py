"""``kill -9`` at random moments of training, and while a checkpoint is written; then ``--resume``."""

import os
import random
import signal
import subprocess
import time

import pytest
import torch

from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.utils.work_dir import checkpoint_problem, latest_checkpoint
from tests.stress.conftest import FACTOR
from tests.tools.command_line import ENVIRONMENT, free_port, run
from tests.tools.test_interruptions import TRAIN, config, losses, settings, weights
from tests.utils import ROOT

__all__ = ['config']  # the fixture
ROUNDS = max(int(20 * FACTOR), 1)
EPOCHS = 2 * ROUNDS


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('killed')
    write_digit_scenes(folder / 'scenes', num_train=4, num_val=4)
    return folder


def newest(work_dir):
    path = latest_checkpoint(work_dir)
    return 0 if path is None else int(path.rsplit('_', 1)[1].split('.')[0])


def arguments(folder, epochs):
    keep = {'default_hooks.checkpoint.max_keep_ckpts': 2}
    return settings(folder, epochs, **keep)


def killed_round(command, work_dir, rng):
    """Train until at least one more epoch is saved, then kill: at once, while a file is written, or a bit later."""
    before = newest(work_dir)
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL
    )
    deadline, in_writing = time.time() + 200, rng.random() < 0.5
    while process.poll() is None and not (work_dir / f'epoch_{before + 1}.pth').exists():
        assert time.time() < deadline
        if in_writing and list(work_dir.glob('.epoch_*.part')):
            break
        time.sleep(0.0005)
    if not in_writing:
        time.sleep(rng.random())
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return before, newest(work_dir)


def test_killed_trainings_lose_no_more_than_an_epoch(folder, config):
    rng, work_dir, mid_write = random.Random(0), folder / 'killed', 0
    for _ in range(ROUNDS):
        command = [*TRAIN, config, '--work-dir', work_dir, '--resume', *arguments(folder, EPOCHS)]
        before, after = killed_round(command, work_dir, rng)
        assert after >= before
        for scratch in work_dir.glob('.epoch_*.part'):
            mid_write += 1
            scratch.unlink()
        # What bears the name of a checkpoint is one.
        assert not [path for path in work_dir.glob('epoch_*.pth') if checkpoint_problem(path)]
    reached = newest(work_dir)
    run(*TRAIN, config, '--work-dir', work_dir, '--resume', *arguments(folder, reached + 1))
    run(*TRAIN, config, '--work-dir', folder / 'whole', *arguments(folder, reached + 1))
    ours, theirs = (weights(path / f'epoch_{reached + 1}.pth') for path in (work_dir, folder / 'whole'))
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    print(f'{ROUNDS} kills, {mid_write} while a file was written; {reached} epochs, equal to those without a kill')


def test_fifty_steps_on_two_processes_repeat_themselves(folder, config):
    """2 processes with 2 data workers each, one step an epoch."""
    found = []
    for name in ('first', 'second'):
        work_dir = folder / f'two_{name}'
        run('tools/dist_train.sh', config, 2, '--work-dir', work_dir, *arguments(folder, 50), PORT=free_port())
        found.append(losses(work_dir))
    assert found[0] == found[1] and len(found[0]) == 50 and torch.tensor(list(found[0].values())).isfinite().all()
