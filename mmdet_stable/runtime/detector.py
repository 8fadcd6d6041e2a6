"""An exported detector, run by ONNX Runtime."""

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy as np
import onnxruntime

from .masks import Frame, boxes_around, instance_masks, panoptic_map, semantic_map, survivors
from .pictures import HAS_PILLOW, MOST_PIXELS, Picture, Prepared, Size, batch_of, decode, prepared

METADATA = 'mmdet_stable'  # the key under which an exported file says what it is
FORMAT = 1


class ModelError(ValueError):
    """A file that is no exported detector, or a damaged one."""


class Found(NamedTuple):
    """Detections of one picture, M of them, by descending score, and maps of the picture's size where the model makes
    them.

    Attributes:
        boxes: (M, 4) float32 left, top, right, bottom, in pixels of the picture as it is seen, EXIF rotation applied.
        scores: (M,) float32 in [0, 1].
        labels: (M,) int64, numbers of classes.
        names: (M,) of the classes.
        masks: (M, height, width) bool of the picture's size; None for detectors of boxes.
        panoptic: (height, width) int32, see :func:`mmdet_stable.runtime.masks.panoptic_map`.
        semantic: (height, width) int64 class of each pixel.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: List[str]
    masks: Optional[np.ndarray] = None
    panoptic: Optional[np.ndarray] = None
    semantic: Optional[np.ndarray] = None

    def taken(self, inds: np.ndarray) -> 'Found':
        """The detections at ``inds``; maps stay."""
        return self._replace(
            boxes=self.boxes[inds],
            scores=self.scores[inds],
            labels=self.labels[inds],
            names=[self.names[index] for index in inds],
            masks=None if self.masks is None else self.masks[inds],
        )

    def records(self) -> List[Dict[str, Any]]:
        """One plain dict per detection, without masks, as JSON takes them."""
        rows = zip(self.boxes.round(2).tolist(), self.scores.tolist(), self.labels.tolist(), self.names)
        return [dict(box=box, score=round(score, 5), label=label, name=name) for box, score, label, name in rows]


NOTHING = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), [])


class Detector:
    """An exported detector in ONNX Runtime.

    Args:
        model: the file that ``python -m mmdet_stable export`` wrote.
        threads: how many threads one picture may use; None for ONNX Runtime's choice, all cores.
        providers: of ONNX Runtime, best first, e.g. ``['CUDAExecutionProvider', 'CPUExecutionProvider']``; None for the
            CPU.
        most_pixels: larger pictures are refused.

    Raises:
        FileNotFoundError: if there is no such file.
        ModelError: for a damaged file, or one that was not written by ``export``.
        ModuleNotFoundError: if the file needs Pillow, which is not installed.
        ValueError: for providers that this ONNX Runtime does not have.
    """

    def __init__(
        self,
        model: Union[str, 'os.PathLike[str]'],
        threads: Optional[int] = None,
        providers: Optional[Sequence[str]] = None,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        path = Path(model)
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such file')
        providers = list(providers or ['CPUExecutionProvider'])
        missing = set(providers) - set(onnxruntime.get_available_providers())
        if missing:
            raise ValueError(
                f'providers={sorted(missing)}: this ONNX Runtime has {onnxruntime.get_available_providers()}; '
                'onnxruntime-gpu or onnxruntime-openvino bring others'
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            if threads < 1:
                raise ValueError(f'threads={threads}: at least 1, or None for all cores')
            options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            if type(error).__module__.startswith('onnxruntime'):
                raise ModelError(f'{path}: cannot be loaded, damaged or not an ONNX file ({error})') from error
            raise
        properties = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in properties:
            raise ModelError(
                f'{path}: not written by `python -m mmdet_stable export`, which says how to prepare pictures'
            )
        self.metadata: Dict[str, Any] = json.loads(properties[METADATA])
        if self.metadata['format'] != FORMAT:
            raise ModelError(
                f'{path}: written in format {self.metadata["format"]} by {self.metadata["version"]}, whose '
                f'runtime reads it; this one reads {FORMAT}'
            )
        if self.metadata['resize'].get('backend') == 'pillow' and not HAS_PILLOW:
            raise ModuleNotFoundError(f'{path}: pictures are resized by Pillow for it: pip install pillow', name='PIL')
        self.classes: List[str] = self.metadata['classes']
        self.most_pixels = most_pixels
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, picture: Picture, threshold: float = 0.0) -> Found:
        """Detections of one picture; see :meth:`many`."""
        return self.many([picture], threshold)[0]

    def many(self, pictures: Sequence[Picture], threshold: float = 0.0, batch_size: int = 1) -> List[Found]:
        """Detections of each picture.

        Args:
            pictures: paths, encoded bytes, or uint8 arrays: (height, width, 3) BGR as of ``cv2.imread`` and as mmdet's
                ``DetInferencer`` takes them, with a fourth channel, which is ignored, or (height, width) grey.
            threshold: detections of lower scores are left out.
            batch_size: how many pictures run at once. Where the model was exported without ``--padded``, only those
                that get the same size do.

        Raises:
            PictureError: for what is no picture, or too large, or so narrow that nothing would remain of it.
        """
        if not 0 <= threshold <= 1 or batch_size < 1:
            raise ValueError(f'threshold={threshold}, batch_size={batch_size}: from 0 to 1, and at least 1')
        found: List[Found] = []
        for start in range(0, len(pictures), batch_size):
            found += self._detect(
                [self.prepare(picture) for picture in pictures[start : start + batch_size]], threshold
            )
        return found

    def prepare(self, picture: Picture) -> Prepared:
        """A picture as the network takes it, but for the padding of a batch."""
        return prepared(self.metadata, decode(picture, self.most_pixels))

    def _detect(self, pictures: Sequence[Prepared], threshold: float) -> List[Found]:
        found: Dict[int, Found] = {}
        for inds in self._batches(pictures):
            part = [pictures[index] for index in inds]
            images, sizes = batch_of(self.metadata, part)
            inputs = dict(images=images, sizes=sizes) if self.metadata['input']['sizes'] else dict(images=images)
            outputs = dict(zip(self.outputs, self.session.run(self.outputs, inputs)))
            for number, index in enumerate(inds):
                of_image = {name: values[number] for name, values in outputs.items()}
                found[index] = self._found(of_image, pictures[index], images.shape[2:], threshold)
        return [found[index] for index in range(len(pictures))]

    def _batches(self, pictures: Sequence[Prepared]) -> Iterator[List[int]]:
        """Which pictures run together."""
        alike: Dict[Any, List[int]] = {}
        for index, picture in enumerate(pictures):
            key = None if self.metadata['input']['sizes'] else picture.pixels.shape
            alike.setdefault(key, []).append(index)
        yield from alike.values()

    def _found(self, outputs: Dict[str, np.ndarray], picture: Prepared, padded: Size, threshold: float) -> Found:
        frame = Frame(padded, picture.pixels.shape[:2], picture.original)
        rule = self.metadata['masks']
        found = self._instances(outputs, frame, threshold) if rule is None or rule['instances'] else NOTHING
        if 'query_masks' not in outputs:
            return found
        of_queries = outputs['query_logits'], outputs['query_masks'], frame, rule
        return found._replace(
            panoptic=panoptic_map(*of_queries) if rule['panoptic'] else None,
            semantic=semantic_map(*of_queries) if rule['semantic'] else None,
        )

    def _instances(self, outputs: Dict[str, np.ndarray], frame: Frame, threshold: float) -> Found:
        (height, width), (rows, columns) = frame.original, frame.resized
        scale = np.array([columns / width, rows / height] * 2, np.float32)
        boxes, scores, labels = outputs['boxes'] / scale, outputs['scores'], outputs['labels']
        found = Found(boxes, scores, labels, [self.classes[label] for label in labels])
        rule, nms = self.metadata['masks'], None
        if rule is not None:
            things = np.flatnonzero(labels < rule['num_things']) if rule['panoptic'] else np.arange(len(labels))
            found, nms = found.taken(things), rule['nms']
            masks, means = instance_masks(outputs['masks'][things], frame)
            found = found._replace(
                masks=masks,
                scores=found.scores * means if rule['score_by_mask'] else found.scores,
                boxes=boxes_around(masks) if rule['boxes_from_masks'] else found.boxes,
            )
        order = np.argsort(-found.scores, kind='stable')
        if nms is not None:
            order = order[survivors(found.boxes[order], found.labels[order], nms)]
        return found.taken(order[(found.scores[order] > 0) & (found.scores[order] >= threshold)])
