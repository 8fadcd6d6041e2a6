"""A trained detector, from its name to its detections."""

import time
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdet_stable.datasets import NamingInferencerLoader
from mmdet_stable.datasets.loading import explained
from mmdet_stable.engine.unknown_settings import settings_named
from mmdet_stable.evaluation.operating_point import OperatingPoint, kept_operating_point
from mmdet_stable.utils.checkpoint import weights_for
from mmdet_stable.utils.quiet import ignore_meshgrid_advice
from mmdet_stable.visualization.fonts import sans_serif_for

from .model_files import Model, ModelFiles, find_model, import_custom
from .pictures import Inputs, Picture, pictures


class Outcome(NamedTuple):
    """What became of one picture.

    Attributes:
        picture: as it was given.
        image: (H, W, 3) uint8, BGR, upright; None where it could not be read.
        sample: mmdet's, with ``pred_instances`` in pixels of the image, on the CPU; None where there is a problem.
        seconds: its share of the time in the model.
        problem: why there is no sample.
    """

    picture: Picture
    image: Optional[np.ndarray]
    sample: Optional[DetDataSample]
    seconds: float = 0.0
    problem: str = ''


def load(
    model: Model,
    checkpoint: Union[str, Path, None] = None,
    device: Optional[str] = None,
    cfg_options: Optional[Mapping[str, Any]] = None,
) -> 'Detector':
    """A trained detector, of this package or of mmdet.

    A config can name any code, and its model is built here, without a question: load what you trust.

    Args:
        model: a config, its file, the name of one of this package's, or ``'mmdet::...'``; a work dir, of which the
            best, otherwise the last checkpoint is taken; a checkpoint beside its config; or the name of published
            weights, as ``'dino-r50-12e'``.
        checkpoint: file or URL; needed where only a config is given, and otherwise replaces what would be taken.
        device: as ``'cuda:0'``; default: a GPU, if there is one.
        cfg_options: settings of the config to change, by dotted key.

    Raises:
        ValueError: for an unknown name, device or setting, or weights that do not fit the model.
        FileNotFoundError: where there is no checkpoint.
    """
    return build_detector(find_model(model, checkpoint), device, cfg_options)


def build_detector(
    files: ModelFiles, device: Optional[str] = None, cfg_options: Optional[Mapping[str, Any]] = None
) -> 'Detector':
    """The detector of a config and a checkpoint; see :func:`load`."""
    check_device(device)
    register_all_modules()
    ignore_meshgrid_advice()
    import_custom(files.config)
    files.config.merge_from_dict(dict(cfg_options or {}))
    with settings_named(files.config):
        inferencer = Inferencer(files.config, weights=files.checkpoint, device=device, show_progress=False)
    return Detector(inferencer, None if '://' in files.checkpoint else kept_operating_point(Path(files.checkpoint)))


def check_device(device: Optional[str]) -> None:
    """See that torch has a device before a model is built for it.

    Raises:
        ValueError: where it has not.
    """
    try:
        found = torch.device(device or 'cpu')
    except RuntimeError as error:
        raise ValueError(f'device={device}: torch knows no such device; it is cpu, cuda, cuda:1 or alike') from error
    if found.type == 'cuda' and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'device={device}: torch sees {torch.cuda.device_count()} GPUs on this machine. Leave the device out, or '
            'take cpu; if there is such a GPU, python tools/doctor.py says why it is not seen'
        )


class Inferencer(DetInferencer):
    """mmdet's inferencer, that refuses weights of another model, and takes unknown class names from the config."""

    def _init_collate(self, cfg: Config) -> Callable:
        if 'collate_fn' in cfg.test_dataloader:
            return super()._init_collate(cfg)
        return pseudo_collate  # which mmdet finds, too, but with a warning

    def _init_visualizer(self, cfg: Config) -> Any:
        if 'visualizer' in cfg:
            cfg.visualizer.vis_backends = None  # which would want a folder
        return super()._init_visualizer(cfg)

    def _init_model(self, cfg: Config, weights: Optional[str], device: str = 'cpu') -> nn.Module:
        # As mmengine's, which would print a line of its own on where the weights come from.
        self._checkpoint = CheckpointLoader.load_checkpoint(weights, map_location='cpu', logger='silent')
        return super()._init_model(cfg, None, device)

    def _load_weights_to_model(self, model: nn.Module, checkpoint: Optional[dict], cfg: Config) -> None:
        checkpoint, self._checkpoint = self._checkpoint, {}  # which nobody needs twice
        weights_for(model, checkpoint)  # which refuses those of another model
        meta = checkpoint.setdefault('meta', {})
        if 'dataset_meta' not in meta and 'CLASSES' not in meta:
            dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'lazy_init': True})
            meta['dataset_meta'] = dict(dataset.metainfo)
        super()._load_weights_to_model(model, checkpoint, cfg)


class Detector:
    """A trained detector; results are those of mmdet's ``DetInferencer``.

    Attributes:
        inferencer: mmdet's, with model, pipeline and visualiser.
        operating_point: the score threshold that `train` found to suit this checkpoint; None where it did not.
    """

    def __init__(self, inferencer: DetInferencer, operating_point: Optional[OperatingPoint] = None) -> None:
        self.inferencer = inferencer
        self.operating_point = operating_point
        self._loader = next(
            transform for transform in inferencer.pipeline.transforms if isinstance(transform, NamingInferencerLoader)
        )

    @property
    def model(self) -> nn.Module:
        """In evaluation mode."""
        return self.inferencer.model

    @property
    def config(self) -> Config:
        return self.inferencer.cfg

    @property
    def classes(self) -> Sequence[str]:
        """Names by label."""
        meta: Any = self.model.dataset_meta
        return meta['classes']

    def predict(
        self,
        images: Inputs,
        batch_size: int = 1,
        score_threshold: float = 0.0,
        slice_size: Optional[int] = None,
        slice_overlap: float = 0.2,
    ) -> List[DetDataSample]:
        """Detect in pictures.

        Args:
            images: one or several paths, folders, videos, patterns, URLs, arrays (BGR, as mmdet's) and PIL images, in
                any mix.
            batch_size: images that the model sees at once, padded to a common size.
            score_threshold: in [0, 1]; detections below are left out.
            slice_size: in pixels of the picture; also look at slices of this size, and merge what is found twice. Needs
                the library SAHI.
            slice_overlap: of neighbouring slices, as part of their size.

        Returns:
            A sample for each image, or frame of a video, in the order of the inputs, on the CPU. Boxes in
            ``pred_instances.bboxes`` are absolute xyxy in pixels of the picture.

        Raises:
            ValueError: naming the first picture that cannot be read.
        """
        samples = []
        for outcome in self.stream(images, batch_size, score_threshold, slice_size, slice_overlap):
            if outcome.sample is None:
                raise ValueError(outcome.problem)
            samples.append(outcome.sample)
        return samples

    def stream(
        self,
        images: Inputs,
        batch_size: int = 1,
        score_threshold: float = 0.0,
        slice_size: Optional[int] = None,
        slice_overlap: float = 0.2,
    ) -> Iterator[Outcome]:
        """Detect in pictures one batch after the other, and go on after those that cannot be read.

        Args: as of :meth:`predict`.

        Yields:
            An outcome for each picture, in the order of the inputs.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size}: at least 1 is needed')
        if not 0 <= score_threshold <= 1:
            raise ValueError(f'score_threshold={score_threshold}: scores lie between 0 and 1')
        if slice_size is not None:
            yield from self._stream_sliced(images, batch_size, score_threshold, slice_size, slice_overlap)
            return
        waiting: List[Outcome] = []
        prepared: List[dict] = []
        for picture in pictures(images):
            outcome, data = self._prepared(picture)
            waiting.append(outcome)
            prepared += [] if data is None else [data]
            if len(prepared) == batch_size:
                yield from self._finished(waiting, prepared, score_threshold)
                waiting, prepared = [], []
        yield from self._finished(waiting, prepared, score_threshold)

    def read(self, picture: Picture) -> np.ndarray:
        """A picture as the config's pipeline loads it, (H, W, 3) BGR: turned upright as EXIF says, without alpha, of 8
        bits.

        Raises:
            ValueError: naming the file, where it cannot be read.
        """
        if picture.problem:
            raise ValueError(picture.problem)
        if isinstance(picture.content, np.ndarray):
            return picture.content
        return self._loader(dict(img_path=picture.content))['img']

    def draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """Boxes, labels, scores and masks of a sample, drawn by mmdet's visualiser on the image (H, W, 3), BGR."""
        visualizer = self.inferencer.visualizer
        labels = sample.pred_instances.labels.tolist() if 'pred_instances' in sample else []
        names = ''.join(str(self.classes[label]) for label in labels)
        with sans_serif_for(names), warnings.catch_warnings():  # of boxes that reach over the edge, which is all right
            warnings.filterwarnings('ignore', '.*out of bounds', UserWarning)
            visualizer.add_datasample('', image[..., ::-1], sample, draw_gt=False, pred_score_thr=-1)
        return visualizer.get_image()[..., ::-1]

    def _prepared(self, picture: Picture) -> Tuple[Outcome, Optional[dict]]:
        """A picture without its sample, and what the pipeline makes of it; None where there is a problem."""
        image = None
        try:
            image = self.read(picture)
            return Outcome(picture, image, None), self.inferencer.pipeline(dict(img=image))
        except Exception as error:  # of whatever kind a decoder or a transform raises; reported with the picture
            return Outcome(picture, image, None, problem=_problem(picture, error)), None

    def _stream_sliced(
        self, images: Inputs, batch_size: int, score_threshold: float, size: int, overlap: float
    ) -> Iterator[Outcome]:
        if size < 1 or not 0 <= overlap < 1:
            raise ValueError(f'slice_size={size}, slice_overlap={overlap}: at least 1, and in [0, 1), are needed')
        try:
            from .slicing import predict_sliced
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}; slices need the library SAHI: pip install 'mmdet_stable[slicing]'"
            ) from error
        for picture in pictures(images):
            outcome, data = self._prepared(picture)
            if data is not None and outcome.image is not None:
                start = time.perf_counter()
                sample = predict_sliced(self, outcome.image, size, overlap, batch_size, score_threshold)
                sample.set_metainfo(dict(img_path=picture.path))
                outcome = outcome._replace(sample=sample, seconds=time.perf_counter() - start)
            yield outcome

    def _finished(self, waiting: List[Outcome], prepared: List[dict], score_threshold: float) -> Iterator[Outcome]:
        """The outcomes of a batch, with the samples of those that are prepared."""
        samples: List[DetDataSample] = []
        start = time.perf_counter()
        if prepared:
            batch = self.inferencer.collate_fn(prepared)
            samples = [sample.cpu() for sample in self.inferencer.forward(batch)]
        seconds = (time.perf_counter() - start) / max(len(prepared), 1)
        remaining = iter(samples)
        for outcome in waiting:
            if outcome.problem:
                yield outcome
                continue
            sample = next(remaining)
            if 'img_path' in sample:
                sample.set_metainfo(dict(img_path=outcome.picture.path))
            yield outcome._replace(sample=above(sample, score_threshold), seconds=seconds)


def above(sample: DetDataSample, score_threshold: float) -> DetDataSample:
    """The sample with only those instances whose score reaches a threshold."""
    if score_threshold > 0 and 'pred_instances' in sample:
        sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= score_threshold]
    return sample


def _problem(picture: Picture, error: Exception) -> str:
    """What is wrong with a picture; an error that names its file already is enough."""
    if picture.path is None:
        return f'{picture}: {type(error).__name__}: {error}'
    return str(error) if str(error).startswith(picture.path) else explained(picture.path, error)
