"""Transforms of training data that mmdet lacks."""

from typing import Tuple

import numpy as np
from mmdet.datasets.transforms import RandomCrop
from mmdet.registry import TRANSFORMS

NUM_TRIES = 10


@TRANSFORMS.register_module()
class SemanticRandomCrop(RandomCrop):
    """A random crop for semantic segmentation in which no class covers nearly everything.

    Of ten crops, the first one is taken that shows two classes or more, none of them on more than ``max_class_share``
    of the labelled pixels; the last one if none does.

    Args:
        crop_size: (width, height) in pixels, as of mmdet's ``RandomCrop``.
        max_class_share: in (0, 1]; published models of ADE20K and Cityscapes are trained with 0.75.
        ignore_index: pixels of this value in the map are not labelled.

    Raises:
        ValueError: for a share out of range; when called, for annotated boxes, which it cannot crop.

    Source: the ``single_category_max_area`` of the released code of MaskDINO.
    """

    def __init__(self, crop_size: Tuple[int, int], max_class_share: float = 0.75, ignore_index: int = 255) -> None:
        if not 0 < max_class_share <= 1:
            raise ValueError(f'max_class_share={max_class_share}: set it to a number above 0 and at most 1, as 0.75')
        super().__init__(crop_size, allow_negative_crop=True)
        self.max_class_share = max_class_share
        self.ignore_index = ignore_index

    def _crop_data(self, results: dict, crop_size: Tuple[int, int], allow_negative_crop: bool) -> dict:
        if results.get('gt_bboxes') is not None:
            raise ValueError('SemanticRandomCrop is for semantic maps alone: take RandomCrop where there are boxes')
        for _ in range(NUM_TRIES):
            cropped = super()._crop_data(dict(results), crop_size, allow_negative_crop)
            if self._is_mixed(cropped['gt_seg_map']):
                break
        return cropped

    def _is_mixed(self, seg_map: np.ndarray) -> bool:
        counts = np.unique(seg_map[seg_map != self.ignore_index], return_counts=True)[1]
        return len(counts) > 1 and counts.max() <= self.max_class_share * counts.sum()
