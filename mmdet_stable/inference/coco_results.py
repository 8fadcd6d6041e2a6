"""Detections as one COCO file."""

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmdet.structures.mask import encode_mask_results

from mmdet_stable.utils.files import write_whole
from mmdet_stable.weights.tensors import USED_ROWS


class CocoResults:
    """Images and what was found in them, in the format of a COCO annotation file with a ``score`` in each annotation.

    Its list ``annotations`` is what ``pycocotools`` calls results.

    Args:
        classes: names by label.
        category_ids: by label; default: COCO's own for its 80 classes, otherwise label + 1.
    """

    def __init__(self, classes: Sequence[str], category_ids: Optional[Sequence[int]] = None) -> None:
        if category_ids is None:
            of_coco = tuple(classes) == CocoDataset.METAINFO['classes']
            category_ids = USED_ROWS if of_coco else range(1, len(classes) + 1)
        self.category_ids = list(category_ids)
        self.categories = [dict(id=number, name=name) for number, name in zip(self.category_ids, classes)]
        self.images: List[Dict[str, Any]] = []
        self.annotations: List[Dict[str, Any]] = []

    def add(
        self, sample: DetDataSample, file_name: str, frame: Optional[int] = None, image_id: Optional[int] = None
    ) -> None:
        """The detections of one image.

        Args:
            sample: boxes absolute xyxy in pixels of the original image.
            file_name: of the image, or of its video.
            frame: number in the video.
            image_id: 0 is one, too; default: the number of images so far, this one counted.

        Raises:
            ValueError: if the model detects no instances, as a purely panoptic one.
        """
        if 'pred_instances' not in sample:
            raise ValueError(f'{file_name}: the model gives no instances, but {sample.keys()}; COCO results need boxes')
        height, width = sample.ori_shape
        number = len(self.images) + 1 if image_id is None else image_id
        image = dict(id=number, file_name=file_name, width=width, height=height)
        self.images.append(image if frame is None else dict(image, frame=frame))
        found = sample.pred_instances
        boxes = get_box_tensor(found.bboxes).numpy().astype(np.float64)
        masks = encode_mask_results(found.masks.numpy()) if 'masks' in found else [None] * len(boxes)
        for (x1, y1, x2, y2), score, label, mask in zip(
            boxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks
        ):
            annotation = dict(
                id=len(self.annotations) + 1,
                image_id=image['id'],
                category_id=self.category_ids[label],
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=(x2 - x1) * (y2 - y1),
                iscrowd=0,
                score=score,
            )
            if mask is not None:
                annotation['segmentation'] = dict(size=mask['size'], counts=mask['counts'].decode())
            self.annotations.append(annotation)

    def write(self, path: Path, complete: bool = True) -> None:
        """Write the file, whole or not at all.

        Args:
            complete: False where the work was interrupted, which is noted.
        """
        content = dict(
            info=dict(description='detections by mmdet_stable', complete=complete),
            images=self.images,
            annotations=self.annotations,
            categories=self.categories,
        )
        write_whole(path, json.dumps(content))
