"""Compares the data with the model before the first step, when a mistake still costs nothing."""

import logging
from itertools import chain
from typing import Iterator

from mmdet.datasets import CocoDataset
from mmdet.registry import HOOKS
from mmengine.dataset import BaseDataset, Compose
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmdet_stable.datasets.checks import FATAL, WARNED, Finding, dataset_findings, parts_of
from mmdet_stable.datasets.coco_checks import not_finite_findings
from mmdet_stable.datasets.loading import NamingPipeline

from .model import unwrapped_model


def check_dataset(dataset: BaseDataset, num_classes: int, key: str) -> None:
    """Check class names, their number and order, every label and box of a dataset, and that its images exist.

    Where no image has a box, it only warns.

    Args:
        dataset: an mmdet dataset, or a wrapper of one or several.
        num_classes: classes of the model's head.
        key: where the dataset stands in the config, for the message, e.g. ``'train_dataloader.dataset'``.

    Raises:
        ValueError: for the first fault, naming the config key and the file.
    """
    for finding in chain(_not_finite(dataset, key), dataset_findings(dataset, num_classes, key)):
        if finding.kind in FATAL:
            raise ValueError(f'{finding}. All faults: python tools/check_dataset.py CONFIG')
        if finding.kind in WARNED:
            print_log(str(finding), 'current', logging.WARNING)


def name_images_in_errors(dataset: BaseDataset) -> None:
    """Let the errors of a data set's pipeline say at which image they happened."""
    for part, _ in parts_of(dataset, ''):
        if type(getattr(part, 'pipeline', None)) is Compose:
            part.pipeline = NamingPipeline(part.pipeline.transforms)


def _not_finite(dataset: BaseDataset, key: str) -> Iterator[Finding]:
    for part, _ in parts_of(dataset, key):
        if isinstance(part, CocoDataset) and not part.backend_args:
            yield from not_finite_findings(part.ann_file)


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Runs :func:`check_dataset` on the data of training, validation and testing before they begin, on one process, and
    lets errors that come later, in data workers too, name the image.

    Checks nothing for models without ``bbox_head.num_classes``.
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
        name_images_in_errors(dataset)
        model = unwrapped_model(runner)
        num_classes = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        if num_classes is not None and is_main_process():
            check_dataset(dataset, num_classes, key)
