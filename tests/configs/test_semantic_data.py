"""ADE20K and Cityscapes for MaskDINO: batches have the published size, and no class covers nearly all of a crop."""

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config

from tests.utils import ROOT

CONFIGS = {'ade20k_r50_160k': (512, 512), 'cityscapes_r50_90k': (512, 1024)}


@pytest.mark.parametrize('name,size', CONFIGS.items())
def test_training_batches(name, size, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs' / 'mask_dino' / f'mask_dino_{name}.py')
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / 'image.png'), rng.integers(0, 255, (600, 1200, 3), np.uint8))
    labels = np.zeros((600, 1200), np.uint8)
    labels[:, ::2] = 3
    cv2.imwrite(str(tmp_path / 'map.png'), labels)
    image = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'map.png'), img_id=0)
    image.update(reduce_zero_label=cfg.train_dataloader.dataset.type.startswith('ADE'), seg_fields=[])
    pipeline = Compose(cfg.train_dataloader.dataset.pipeline)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    np.random.seed(0)
    for _ in range(4):
        packed = [pipeline(dict(image)) for _ in range(2)]
        data = preprocessor({key: [each[key] for each in packed] for key in packed[0]}, training=True)
        assert data['inputs'].shape == (2, 3, *size)
        for sample in data['data_samples']:
            assert sample.gt_sem_seg.sem_seg.shape == (1, *size) and sample.batch_input_shape == size


def crops(seg_map, number=40, **settings):
    transform = TRANSFORMS.build(dict(type='SemanticRandomCrop', crop_size=(20, 10), **settings))
    image = np.arange(seg_map.size * 3).reshape(*seg_map.shape, 3)
    np.random.seed(0)
    for _ in range(number):
        results = dict(img=image, gt_seg_map=seg_map)
        cropped = transform(results)
        assert results['img'] is image and cropped['img'].shape == (10, 20, 3) and cropped['img_shape'] == (10, 20)
        top, left = np.argwhere((image == cropped['img'][0, 0]).all(-1))[0]
        assert np.array_equal(cropped['gt_seg_map'], seg_map[top : top + 10, left : left + 20])
        yield cropped['gt_seg_map']


def test_no_class_covers_nearly_everything():
    seg_map = np.ones((40, 100), int)
    seg_map[:, 50:] = 2
    seg_map[:, 90:] = 255
    shares = [max((crop == label).sum() / (crop != 255).sum() for label in (1, 2)) for crop in crops(seg_map)]
    assert np.mean(np.array(shares) <= 0.75) > 0.5  # 0.1 of single draws
    shares = [(crop == 1).mean() for crop in crops(seg_map, max_class_share=1.0)]
    assert np.mean([0 < share < 1 for share in shares]) > 0.8


def test_maps_of_one_class_or_none():
    for label in (1, 255):
        assert all((crop == label).all() for crop in crops(np.full((40, 100), label), number=3))


def test_errors():
    with pytest.raises(ValueError, match='max_class_share=0'):
        TRANSFORMS.build(dict(type='SemanticRandomCrop', crop_size=(20, 10), max_class_share=0))
    transform = TRANSFORMS.build(dict(type='SemanticRandomCrop', crop_size=(20, 10)))
    with pytest.raises(ValueError, match='take RandomCrop where there are boxes'):
        transform(dict(img=np.zeros((20, 20, 3)), gt_seg_map=np.zeros((20, 20)), gt_bboxes=np.zeros((1, 4))))
