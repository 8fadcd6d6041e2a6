"""Detection in overlapping slices of large images, by the SAHI library."""

from typing import Any, List, Optional

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction
from sahi.utils.compatibility import fix_full_shape_list, fix_shift_amount_list
from sahi.utils.cv import get_coco_segmentation_from_bool_mask

from .detector import Detector

MIN_MASK = 4  # pixels; SAHI makes no polygon of less


class SlicedModel(DetectionModel):
    """A detector as SAHI calls it. SAHI's images are RGB.

    Args:
        detector: of this package.
        score_threshold: in [0, 1]; what lies below is not merged.
        batch_size: slices at once.
    """

    def __init__(self, detector: Detector, score_threshold: float, batch_size: int) -> None:
        self.batch_size = batch_size
        super().__init__(model=detector, confidence_threshold=score_threshold, device='cpu')

    def set_model(self, model: Detector, **kwargs: Any) -> None:
        self.model = model
        self.category_mapping = {str(label): name for label, name in enumerate(model.classes)}

    def perform_inference(self, image: np.ndarray) -> None:
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: List[np.ndarray]) -> None:
        arrays = [image[..., ::-1] for image in images]
        self._original_predictions = self.model.predict(arrays, self.batch_size, self.confidence_threshold)

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        shifts = fix_shift_amount_list(shift_amount_list or [[0, 0]])
        shapes = fix_full_shape_list(full_shape_list) or [None] * len(shifts)
        self._object_prediction_list_per_image = [
            self._objects(sample, list(map(int, shift)), shape)
            for sample, shift, shape in zip(self._original_predictions, shifts, shapes)
        ]

    def _objects(self, sample: DetDataSample, shift: List[int], full_shape: Any) -> List[ObjectPrediction]:
        found, (height, width) = sample.pred_instances, sample.ori_shape
        limits = torch.tensor([width, height, width, height])
        boxes = found.bboxes.clamp(min=0).minimum(limits)
        objects = []
        for index, (box, score, label) in enumerate(zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist())):
            mask = found.masks[index].numpy() if 'masks' in found else None
            if not (box[0] < box[2] and box[1] < box[3]) or (mask is not None and mask.sum() < MIN_MASK):
                continue
            polygons = None if mask is None else get_coco_segmentation_from_bool_mask(mask)
            if polygons == []:
                continue
            objects.append(
                ObjectPrediction(
                    bbox=box,
                    category_id=label,
                    category_name=self.model.classes[label],
                    segmentation=polygons,
                    score=score,
                    shift_amount=shift,
                    full_shape=full_shape or [height, width],
                )
            )
        return objects


def predict_sliced(
    detector: Detector, image: np.ndarray, size: int, overlap: float, batch_size: int, score_threshold: float
) -> DetDataSample:
    """Detect in slices of an image, and in the whole of it, and merge what is found twice.

    Args:
        image: (H, W, 3) uint8, BGR.
        size: of slices, in pixels of the image.
        overlap: of neighbouring slices, as part of their size.
        batch_size: slices at once.
        score_threshold: in [0, 1]; what lies below is not merged.

    Returns:
        A sample with boxes, and masks where the model gives them, in pixels of the image.
    """
    result = get_sliced_prediction(
        np.ascontiguousarray(image[..., ::-1]),
        SlicedModel(detector, score_threshold, batch_size),
        slice_height=size,
        slice_width=size,
        overlap_height_ratio=overlap,
        overlap_width_ratio=overlap,
        batch_size=batch_size,
        verbose=0,
    )
    objects = sorted(result.object_prediction_list, key=lambda found: -found.score.value)
    height, width = image.shape[:2]
    sample = DetDataSample(metainfo=dict(img_path=None, ori_shape=(height, width), img_shape=(height, width)))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([found.bbox.to_xyxy() for found in objects], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([found.score.value for found in objects], dtype=torch.float32),
        labels=torch.tensor([found.category.id for found in objects], dtype=torch.int64),
    )
    masks: List[Optional[np.ndarray]] = [found.mask.bool_mask if found.mask else None for found in objects]
    if objects and masks[0] is not None:
        sample.pred_instances.masks = torch.from_numpy(
            np.stack([mask for mask in masks if mask is not None]).astype(bool)
        )
    return sample
