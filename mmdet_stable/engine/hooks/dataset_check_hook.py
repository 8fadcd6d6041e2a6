"""Compares the data with the model before the first step, when a mistake still costs nothing."""

import mmengine
from mmdet.datasets import CocoDataset
from mmdet.registry import HOOKS
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .model import unwrapped_model


def check_dataset(dataset: BaseDataset, num_classes: int, key: str) -> None:
    """Check class names, their number and order, and every label of a dataset.

    Args:
        dataset: an mmdet dataset, or a wrapper of one or several.
        num_classes: classes of the model's head.
        key: where the dataset stands in the config, for the message, e.g. ``'train_dataloader.dataset'``.

    Raises:
        ValueError: naming the config key, the label and the image at fault.
    """
    if hasattr(dataset, 'datasets'):
        for index, part in enumerate(dataset.datasets):
            check_dataset(part, num_classes, f'{key}.datasets[{index}]')
    elif hasattr(dataset, 'dataset'):
        check_dataset(dataset.dataset, num_classes, f'{key}.dataset')
    else:
        check_classes(dataset, num_classes, key)
        check_labels(dataset, num_classes, key)


def check_classes(dataset: BaseDataset, num_classes: int, key: str) -> None:
    """The names of ``metainfo.classes`` against the head and, for COCO's format, against the annotation file."""
    classes = dataset.metainfo.get('classes')
    if classes is None:
        raise ValueError(f'{key}.metainfo has no "classes"; set {key}.metainfo=dict(classes=("name", ...))')
    if isinstance(classes, str):
        raise ValueError(f'{key}.metainfo.classes={classes!r} is a string; one class needs a comma: ({classes!r},)')
    if len(classes) != num_classes:
        raise ValueError(
            f'model.bbox_head.num_classes={num_classes}, but {key} has {len(classes)} classes '
            f'{tuple(classes[:5])}{"..." if len(classes) > 5 else ""}; set model.bbox_head.num_classes={len(classes)} '
            f'or {key}.metainfo=dict(classes=(...))'
        )
    standard = isinstance(dataset, CocoDataset) and classes == dataset.METAINFO.get('classes')
    if not isinstance(dataset, CocoDataset) or (standard and len(dataset.cat_ids) == len(classes)):
        return  # COCO itself is known to fit, and its annotation file takes long to read
    annotations = mmengine.load(dataset.ann_file, backend_args=dataset.backend_args)
    names = [category['name'] for category in annotations['categories'] if category['name'] in classes]
    if set(names) != set(classes):
        raise ValueError(
            f'{key}: {sorted(set(classes) - set(names))} of metainfo.classes are no categories of {dataset.ann_file}; '
            f'its categories are {[category["name"] for category in annotations["categories"]][:20]}'
        )
    if names != list(classes):
        raise ValueError(
            f'{key}.metainfo.classes={tuple(classes)} is not in the order of {dataset.ann_file}, by which mmdet counts '
            f'labels, so that predictions would get wrong names; set it to {tuple(names)}'
        )


def check_labels(dataset: BaseDataset, num_classes: int, key: str) -> None:
    """Every label of the dataset, which is held in memory."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for instance in info.get('instances', ()):
            if not 0 <= instance['bbox_label'] < num_classes:
                raise ValueError(
                    f'{key}: label {instance["bbox_label"]} in {info.get("img_path", f"image {index}")} is outside '
                    f'0 to {num_classes - 1}, as model.bbox_head.num_classes={num_classes} demands'
                )


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
