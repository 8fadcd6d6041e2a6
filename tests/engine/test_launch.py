"""What the tools do around a training: the process group, the lock, the checks before anything is built."""

import os
import subprocess
import sys
import threading

import pytest
from mmengine.config import Config

from mmdet_stable.engine import launch
from mmdet_stable.engine.lock import lock_holder, locked
from tests.tools.command_line import ENVIRONMENT, free_port
from tests.utils import ROOT

THREADS_LEFT = """
import pathlib

import torch
import torch.distributed as dist

from mmdet_stable.engine.launch import ends_process_group


class Runner:
    def __init__(self):
        self.model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
        self.loop = self


@ends_process_group
def main():
    dist.init_process_group('gloo')
    Runner().model(torch.ones(3)).sum().backward()


main()
print(dist.is_initialized(), [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/comm')])
"""
FAILING = """
import os, sys

import torch
import torch.distributed as dist

from mmdet_stable.engine.launch import ends_process_group


@ends_process_group
def main():
    dist.init_process_group('gloo')
    dist.barrier()
    if dist.get_rank() == 1:
        sys.stdin.read()
        os._exit(0)
    dist.all_reduce(torch.ones(3), async_op=True)
    raise ValueError('the true reason')


main()
"""


def start(code, rank=0, world_size=1, port=None, **pipes):
    variables = dict(RANK=rank, WORLD_SIZE=world_size, MASTER_ADDR='127.0.0.1', MASTER_PORT=port or free_port())
    environment = {**ENVIRONMENT, **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, env=environment, text=True, **pipes)


@pytest.mark.skipif(not os.path.exists('/proc/self/task'), reason='the names of threads are read from /proc')
def test_threads_of_the_process_group_end_before_python():
    process = start(THREADS_LEFT, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0 and output.startswith('False [') and 'gloo' not in output


def test_an_error_is_shown_while_others_still_wait():
    """An operation is under way that the other process never answers; the timer is for a tool that waits for it."""
    port = free_port()
    failing = start(FAILING, 0, 2, port, stderr=subprocess.PIPE)
    waiting = start(FAILING, 1, 2, port, stdin=subprocess.PIPE)
    timer = threading.Timer(900, waiting.kill)
    timer.start()
    try:
        shown = next(line for line in failing.stderr if 'ValueError: the true reason' in line)
        assert shown and waiting.poll() is None
    finally:
        timer.cancel()
        waiting.kill()
        waiting.communicate()
        failing.communicate(timeout=900)
    assert failing.returncode != 0


def test_the_group_is_destroyed_after_an_error(monkeypatch):
    for name, value in dict(RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port()).items():
        monkeypatch.setenv(name, str(value))

    @launch.ends_process_group
    def tool():
        launch.torch.distributed.init_process_group('gloo')
        raise ValueError('the true reason')

    with pytest.raises(ValueError, match='the true reason'):
        tool()
    assert not launch.torch.distributed.is_initialized()


class TestLock:
    HOLD = 'import sys; from pathlib import Path; from mmdet_stable.engine.lock import locked\n'

    def held_by(self, path, code):
        process = start(f'{self.HOLD}with locked(Path({str(path)!r})) as held:\n    {code}', stdout=subprocess.PIPE)
        assert process.stdout.readline() == 'True\n'
        return process

    def test_one_training_at_a_time(self, tmp_path):
        message = f'another training writes into .* process {os.getpid()} on '
        first, second = launch.only_training(tmp_path), launch.only_training(tmp_path)
        with first, pytest.raises(BlockingIOError, match=message), second:
            pass
        with launch.only_training(tmp_path):  # the file is still there, and locks nothing
            assert (tmp_path / launch.TRAINING_LOCK).exists()

    def test_only_the_first_process_locks(self, tmp_path, monkeypatch):
        """The others may have a file system of their own, on which nothing is to be found."""
        monkeypatch.setenv('RANK', '1')
        with launch.only_training(tmp_path / 'none', 'pytorch'):
            pass
        monkeypatch.setenv('SLURM_PROCID', '0')
        with launch.only_training(tmp_path, 'slurm'):
            assert lock_holder(tmp_path / launch.TRAINING_LOCK).startswith(f'process {os.getpid()} on ')

    def test_a_kill_ends_the_lock(self, tmp_path):
        """Also where a data worker, forked from the process that was killed, lives on."""
        path = tmp_path / 'lock'
        process = self.held_by(
            path,
            'import os, time; worker = os.fork(); time.sleep(600) if not worker else print(held, flush=True)\n'
            '    print(worker, flush=True); sys.stdin.read(); time.sleep(600)',
        )
        worker = int(process.stdout.readline())
        with locked(path) as held:
            assert not held and lock_holder(path).startswith(f'process {process.pid} on ')
        process.kill()
        process.wait()
        try:
            with locked(path) as held:
                assert held
            os.kill(worker, 0)  # it is still there
        finally:
            os.kill(worker, 9)
            process.stdout.close()

    def test_a_file_system_without_locks(self, tmp_path, monkeypatch):
        def flock(*args):
            raise OSError(38, 'Function not implemented')

        monkeypatch.setattr('fcntl.flock', flock)
        with locked(tmp_path / 'lock') as held:
            assert held


@pytest.mark.parametrize('device,refused', [('cpu', True), ('mps', True), ('cuda', False)])
def test_mixed_precision_needs_a_gpu(device, refused, monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: device)
    launch.check_precision(Config(dict(optim_wrapper=dict(type='OptimWrapper'))))
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper')))
    if refused:
        with pytest.raises(ValueError, match=r'needs a GPU, and torch sees none .* Train without it'):
            launch.check_precision(cfg)
    else:
        launch.check_precision(cfg)
