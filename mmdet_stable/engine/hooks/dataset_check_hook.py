"""Compares the data with the model before the first step, when a mistake still costs nothing."""

from mmdet.registry import HOOKS
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_stable.datasets.checks import FATAL, dataset_findings

from .model import unwrapped_model


def check_dataset(dataset: BaseDataset, num_classes: int, key: str) -> None:
    """Check class names, their number and order, every label and box of a dataset, and that its images exist.

    Args:
        dataset: an mmdet dataset, or a wrapper of one or several.
        num_classes: classes of the model's head.
        key: where the dataset stands in the config, for the message, e.g. ``'train_dataloader.dataset'``.

    Raises:
        ValueError: for the first fault, naming the config key and the file.
    """
    for finding in dataset_findings(dataset, num_classes, key):
        if finding.kind in FATAL:
            raise ValueError(f'{finding}. All faults: python tools/check_dataset.py CONFIG')


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Runs :func:`check_dataset` on the data of training, validation and testing before they begin, on one process.

    Does nothing for models without ``bbox_head.num_classes``.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        self._check(runner, runner.train_dataloader.dataset, 'train_dataloader.dataset')
        if runner.val_loop is not None:
            self._check(runner, runner.val_dataloader.dataset, 'val_dataloader.dataset')

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader.dataset, 'test_dataloader.dataset')

    @staticmethod
    def _check(runner: Runner, dataset: BaseDataset, key: str) -> None:
        model = unwrapped_model(runner)
        num_classes = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        if num_classes is not None and is_main_process():
            check_dataset(dataset, num_classes, key)
