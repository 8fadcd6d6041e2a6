import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmdet_stable.datasets import DIGIT_CLASSES, write_digit_scenes


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return write_digit_scenes(tmp_path_factory.mktemp('data') / 'scenes', num_train=60, num_val=10, seed=3)


def test_coco_format(scenes):
    for split, num in (('train', 60), ('val', 10)):
        coco = COCO(scenes / 'annotations' / f'instances_{split}.json')
        assert [category['name'] for category in coco.dataset['categories']] == list(DIGIT_CLASSES)
        assert len(coco.imgs) == num == len(list((scenes / split).glob('*.png')))
        counts = [len(coco.getAnnIds(imgIds=[image])) for image in coco.imgs]
        assert max(counts) <= 8
        for annotation in coco.dataset['annotations']:
            image = coco.imgs[annotation['image_id']]
            x, y, w, h = annotation['bbox']
            assert x >= 0 and y >= 0 and x + w <= image['width'] and y + h <= image['height']
            assert 12 <= h <= 56 and 3 <= w <= 56 and annotation['area'] == w * h
        assert cv2.imread(str(scenes / split / '000001.png')).shape == (128, 160, 3)


def test_some_images_are_empty_and_every_digit_occurs(scenes):
    coco = COCO(scenes / 'annotations' / 'instances_train.json')
    assert any(not coco.getAnnIds(imgIds=[image]) for image in coco.imgs)
    assert {annotation['category_id'] for annotation in coco.dataset['annotations']} == set(range(1, 11))


def test_seed_and_second_call(scenes, tmp_path):
    again = write_digit_scenes(tmp_path / 'again', 60, 10, seed=3)
    for name in ('annotations/instances_train.json', 'train/000007.png', 'val/000003.png'):
        assert (scenes / name).read_bytes() == (again / name).read_bytes()
    before = (again / 'train' / '000001.png').stat().st_mtime_ns
    write_digit_scenes(again, 60, 10, seed=3)
    assert (again / 'train' / '000001.png').stat().st_mtime_ns == before
    other = write_digit_scenes(tmp_path / 'other', 60, 10, seed=4)
    assert json.loads((other / 'annotations' / 'instances_val.json').read_text()) != json.loads(
        (again / 'annotations' / 'instances_val.json').read_text()
    )


def test_training_and_validation_never_share_a_digit(monkeypatch, tmp_path):
    """Each digit image is replaced by its own number, and the numbers seen by each split are compared."""
    seen = []
    monkeypatch.setattr(
        'mmdet_stable.datasets.digit_scenes._write_split',
        lambda folder, split, num, images, labels, rng: seen.append({image.tobytes() for image in images}),
    )
    write_digit_scenes(tmp_path / 'scenes', 1, 1)
    train, val = seen
    assert train and val and not train & val


def test_errors(tmp_path):
    (tmp_path / 'mine.txt').write_text('keep me')
    with pytest.raises(FileExistsError, match='not empty and not these digit scenes'):
        write_digit_scenes(tmp_path)
    assert (tmp_path / 'mine.txt').read_text() == 'keep me'
    with pytest.raises(ValueError, match='num_train=0'):
        write_digit_scenes(tmp_path / 'x', num_train=0)


def test_masks_are_the_visible_ink(scenes):
    coco = COCO(scenes / 'annotations' / 'instances_train.json')
    hidden = 0
    for image in coco.imgs:
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
        masks = [coco.annToMask(annotation) for annotation in annotations]
        assert all(mask.shape == (128, 160) for mask in masks)
        if masks:
            assert np.max(np.sum(masks, 0)) == 1  # no pixel belongs to two digits
        for index, (annotation, mask) in enumerate(zip(annotations, masks)):
            x, y, w, h = annotation['bbox']
            inside = mask[y : y + h, x : x + w]
            assert inside.sum() == mask.sum() > 0.1 * w * h
            rows, columns = np.where(mask)
            extent = columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()
            if extent != (x, y, w, h):  # a later digit hides a part
                hidden += 1
                assert any(overlap(annotation['bbox'], later['bbox']) for later in annotations[index + 1 :])
    assert hidden


def overlap(box, other):
    return all(box[i] < other[i] + other[i + 2] and other[i] < box[i] + box[i + 2] for i in (0, 1))


def test_scenes_of_other_settings_are_not_written_over(tmp_path):
    folder = write_digit_scenes(tmp_path / 'scenes', 3, 2)
    assert [path.name for path in tmp_path.iterdir()] == ['scenes']
    with pytest.raises(FileExistsError, match='not these digit scenes'):
        write_digit_scenes(folder, 4, 2)
