"""Random numbers of an epoch must not depend on what ran before it."""

import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import worker_init_fn
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmdet_stable.engine.hooks import EpochSeedHook


class Draws(torch.utils.data.Dataset):
    """What augmentation draws from, in whichever process loads the data."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


def runner(num_workers, persistent=False, loop=EpochBasedTrainLoop):
    init = partial(worker_init_fn, num_workers=num_workers, rank=0, seed=60)
    loader = torch.utils.data.DataLoader(
        Draws(), num_workers=num_workers, worker_init_fn=init, persistent_workers=persistent
    )
    return SimpleNamespace(
        seed=60, epoch=0, deterministic=False, train_dataloader=loader, train_loop=object.__new__(loop)
    )


def epoch(runner, number):
    runner.epoch = number
    EpochSeedHook().before_train_epoch(runner)
    return torch.cat([*runner.train_dataloader, torch.rand(1, 3)])


@pytest.mark.parametrize('num_workers,persistent', [(0, False), (2, False), (2, True)])
def test_an_epoch_is_the_same_after_resuming(num_workers, persistent):
    whole = runner(num_workers, persistent)
    draws = [epoch(whole, number) for number in range(3)]
    assert epoch(runner(num_workers, persistent), 2).equal(draws[2])
    assert len(torch.cat(draws).unique()) == torch.cat(draws).numel()  # no epoch and no worker repeats another


def test_processes_draw_differently(monkeypatch):
    first = epoch(runner(0), 1)
    monkeypatch.setattr('mmdet_stable.engine.hooks.epoch_seed_hook.get_rank', lambda: 1)
    assert not (epoch(runner(0), 1) == first).any()


def test_training_by_iterations_is_left_alone():
    state = torch.get_rng_state()
    EpochSeedHook().before_train_epoch(runner(0, loop=IterBasedTrainLoop))
    assert torch.get_rng_state().equal(state)
