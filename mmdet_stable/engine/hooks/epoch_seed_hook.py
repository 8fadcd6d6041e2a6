"""Random numbers that do not depend on how often a training was interrupted."""

from functools import partial

from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed

SEEDS = 2**31  # numpy takes seeds below 2**32


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every epoch anew, from the training's seed, the epoch and the process.

    So a training that resumes at an epoch goes on with the augmentation and the noise that it would have had without
    the interruption. Data workers start anew with each epoch too: mmengine gives them a seed only when they start, the
    same one every time.

    Training by iterations is left alone: it resumes in the middle of the data, at which its workers cannot start.
    """

    priority = 'VERY_HIGH'  # before anything draws

    def before_train_epoch(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        # Far apart, so that epochs, processes and workers, which count up from it, never share a seed.
        seed = (runner.seed + 1_000_003 * runner.epoch + 10_007 * get_rank()) % SEEDS
        set_random_seed(seed, deterministic=runner.deterministic)
        loader = runner.train_dataloader
        if loader.num_workers and 'seed' in getattr(loader.worker_init_fn, 'keywords', {}):
            loader._iterator = None  # ends workers that persist
            loader.worker_init_fn = partial(
                loader.worker_init_fn, seed=seed + 1
            )  # the first must not draw what this one does
