"""Large-scale jitter: after all transforms, boxes, masks and images still belong together, in one frame."""

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures.mask import mask2bbox
from mmengine.config import Config

from mmdet_stable.structures import MaskTargets
from tests.utils import ROOT

LSJ = Config.fromfile(ROOT / 'configs/_base_/lsj.py')
SQUARES = [(40, 30, 60), (200, 150, 90), (300, 20, 30)]  # left, top, size


@pytest.fixture
def image(tmp_path):
    """A black image of white squares, as what a data set hands to its pipeline."""
    pixels = np.zeros((300, 400, 3), np.uint8)
    instances = []
    for label, (x, y, size) in enumerate(SQUARES):
        pixels[y : y + size, x : x + size] = 255
        corners = [x, y, x + size, y, x + size, y + size, x, y + size]
        box = [x, y, x + size, y + size]
        instances.append(dict(bbox=box, bbox_label=label, mask=[corners], ignore_flag=0))
    cv2.imwrite(str(tmp_path / '1.png'), pixels)
    return dict(img_path=str(tmp_path / '1.png'), img_id=1, height=300, width=400, instances=instances)


def test_training(image):
    pipeline, preprocessor = Compose(LSJ.lsj_train_pipeline), MODELS.build(LSJ.lsj_data_preprocessor)
    np.random.seed(0)
    numbers, scales = set(), []
    for _ in range(6):
        packed = [pipeline({**image, 'instances': [dict(one) for one in image['instances']]}) for _ in range(2)]
        batch = {key: [each[key] for each in packed] for key in packed[0]}
        data = preprocessor(batch, training=True)
        assert data['inputs'].shape == (2, 3, 1024, 1024)
        white = data['inputs'].mean(1) > 1  # of the normalised image
        masks = []
        for pixels, sample in zip(white, data['data_samples']):
            assert sample.batch_input_shape == (1024, 1024)
            gts = sample.gt_instances
            numbers.add(len(gts))
            scales.append(sample.scale_factor[0])
            masks.append(gts.masks.to_tensor(torch.bool, 'cpu'))
            assert masks[-1].shape[1:] == (1024, 1024)
            different = masks[-1].any(0) != pixels
            assert different.sum() <= 0.05 * pixels.sum() + 60 * len(gts) + 60  # blurred edges
            if len(gts):
                extents = mask2bbox(masks[-1])
                assert (gts.bboxes - extents).abs().max() <= 2
        assert MaskTargets.from_masks(masks).num_gts == tuple(len(image_masks) for image_masks in masks)
    assert min(scales) < 1024 / 400 < max(scales)
    assert len(numbers) > 1  # crops lose squares


def test_inference(image):
    packed = Compose(LSJ.lsj_test_pipeline)(image)
    assert packed['inputs'].shape == (3, 800, 1067)
    assert packed['data_samples'].ori_shape == (300, 400)
