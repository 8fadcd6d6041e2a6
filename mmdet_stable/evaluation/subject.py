"""A trained model together with the data it is evaluated on."""

from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Union

from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict

from mmdet_stable.utils.checkpoint import weights_for
from mmdet_stable.utils.quiet import quiet
from mmdet_stable.utils.unknown_settings import settings_named


class Subject(NamedTuple):
    """A model in evaluation mode, what to call it, its config, and its test set."""

    name: str
    config: Config
    model: DetectionTransformer
    dataset: BaseDataset

    def batch(self, index: int) -> Dict[str, list]:
        """One image of the data set, as a data loader would give it."""
        return one_image(self.dataset, index)

    def file_batch(self, path: str) -> Dict[str, list]:
        """An image of any place, prepared like those of the data set, without ground truth."""
        return pseudo_collate([self.dataset.pipeline(dict(img_path=str(path), img_id=0))])

    def batches(self, num_images: Optional[int]) -> Iterator[Dict[str, list]]:
        """The first images of the data set, one by one; all of them for None."""
        return first_images(self.dataset, num_images)


def load_subject(name: str, cfg: Config, checkpoint: Union[str, Path], device: str) -> Subject:
    """Build the model of a config, load its weights, and build the data set of its ``test_dataloader``.

    Raises:
        ValueError: for weights of another model, of which mmdet only warns for its own detectors.
    """
    register_all_modules()
    with settings_named(cfg):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    loaded = CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu', logger='silent')
    load_state_dict(model, weights_for(model, loaded))
    model.to(device).eval()
    with quiet():
        return Subject(name, cfg, model, DATASETS.build(cfg.test_dataloader.dataset))


def first_images(dataset: BaseDataset, num_images: Optional[int]) -> Iterator[Dict[str, list]]:
    """Batches of one image each, so that no image is padded to the size of another."""
    for index in range(len(dataset) if num_images is None else min(num_images, len(dataset))):
        yield one_image(dataset, index)


def one_image(dataset: BaseDataset, index: int) -> Dict[str, list]:
    """A batch of one image.

    Raises:
        ValueError: if the data set has no such image.
    """
    if not 0 <= index < len(dataset):
        raise ValueError(f'image {index}: the data set has images 0 to {len(dataset) - 1}')
    return pseudo_collate([dataset[index]])
