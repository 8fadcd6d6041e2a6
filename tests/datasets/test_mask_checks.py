"""Every fault of masks is found and named; good masks, of either kind, give none."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.datasets.checks import REMEDIES
from mmdet_stable.datasets.coco_checks import coco_findings
from mmdet_stable.datasets.mask_checks import decompressed, loads_masks

POLYGON = [2, 3, 12, 3, 12, 13, 2, 13]


def encoded(box=(2, 3, 12, 13), size=(30, 40)):
    mask = np.zeros(size, np.uint8, order='F')
    mask[box[1] : box[3], box[0] : box[2]] = 1
    rle = coco_mask.encode(mask)
    return dict(size=[int(v) for v in rle['size']], counts=rle['counts'].decode())


RLE = encoded()
UNCOMPRESSED = dict(size=[30, 40], counts=decompressed(RLE['counts']))


def found(folder, segmentation, masks='bitmaps', **annotation):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(folder / '1.png')
    entry = dict(id=1, image_id=1, category_id=1, bbox=[2, 3, 10, 10], area=100, iscrowd=0, **annotation)
    if segmentation is not None:
        entry['segmentation'] = segmentation
    content = dict(
        categories=[dict(id=1, name='a')],
        images=[dict(id=1, file_name='1.png', width=40, height=30)],
        annotations=[entry],
    )
    file = folder / 'train.json'
    file.write_text(json.dumps(content))
    return list(coco_findings(str(file), str(folder), ('a',), 1, 10, 'data', masks=masks))


@pytest.mark.parametrize('segmentation', [[POLYGON], [POLYGON, POLYGON], RLE, UNCOMPRESSED])
def test_good_masks(tmp_path, segmentation):
    assert found(tmp_path, segmentation) == []
    assert found(tmp_path, None, masks=None) == []


@pytest.mark.parametrize(
    'segmentation,kind,what',
    [
        (None, 'mask-missing', 'missing'),
        ([], 'mask-missing', 'empty'),
        ([[1, 2, 3, 4]], 'mask-broken', 'has 4 numbers'),
        ([POLYGON[:-1]], 'mask-broken', 'has 7 numbers'),
        ([POLYGON, [1, 2]], 'mask-broken', 'polygon 1 has 2'),
        ([[*POLYGON[:-1], float('nan')]], 'mask-broken', 'not finite'),
        ([[*POLYGON[:-1], None]], 'mask-broken', 'not a list of numbers'),
        (['12'], 'mask-broken', 'not a list of numbers'),
        ('12', 'mask-broken', 'neither polygons'),
        (dict(size=[30, 40]), 'mask-broken', 'no "counts"'),
        (dict(counts='abc'), 'mask-broken', 'no "counts"'),
        (dict(RLE, counts=RLE['counts'][:-1]), 'mask-broken', ''),
        (dict(RLE, counts='~~'), 'mask-broken', 'no character'),
        (dict(RLE, counts='PP'), 'mask-broken', 'end within a number'),
        (dict(UNCOMPRESSED, counts=[1, 2, 3]), 'mask-broken', 'cover 6 pixels'),
        (dict(UNCOMPRESSED, counts=[-5, 1205]), 'mask-broken', 'cover 1200'),
        (dict(UNCOMPRESSED, counts=[1.5]), 'mask-broken', 'not whole numbers'),
        (encoded(size=(40, 30)), 'mask-size', '[40, 30]'),
        (encoded((2, 3, 2, 3)), 'mask-empty', 'no pixel'),
        ([[2, 3, 5, 3, 9, 3]], 'mask-empty', 'no pixel'),
        ([[100, 100, 110, 100, 110, 110]], 'mask-empty', 'no pixel'),
        ([[22, 13, 32, 13, 32, 23]], 'mask-box', '(22.0, 13.0, 32.0, 23.0)'),
        (encoded((2, 3, 5, 6)), 'mask-box', '(2.0, 3.0, 5.0, 6.0)'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_faults(tmp_path, segmentation, kind, what):
    (finding,) = found(tmp_path, segmentation)
    assert (finding.kind, finding.key) == (kind, 'annotations[0].segmentation')
    assert what in finding.problem and finding.remedy == REMEDIES[kind]
    assert found(tmp_path, segmentation, masks=None) == []


def test_run_lengths_where_polygons_are_loaded(tmp_path):
    (finding,) = found(tmp_path, RLE, masks='polygons')
    assert finding.kind == 'mask-rle'
    assert found(tmp_path, [POLYGON], masks='polygons') == []


def test_crowds_keep_their_run_lengths(tmp_path):
    content = dict(segmentation=encoded((0, 0, 40, 2)), masks='polygons')
    assert [finding.kind for finding in found(tmp_path, **content)] == ['mask-rle']
    file = tmp_path / 'train.json'
    entry = json.loads(file.read_text())
    entry['annotations'][0]['iscrowd'] = 1
    file.write_text(json.dumps(entry))
    assert list(coco_findings(str(file), str(tmp_path), ('a',), 1, 10, 'data', masks='polygons')) == []


def test_decompression_is_that_of_pycocotools():
    rng = np.random.default_rng(0)
    for share in (0.01, 0.3, 0.9):
        mask = np.asfortranarray(rng.random((37, 53)) < share, np.uint8)
        runs = decompressed(coco_mask.encode(mask)['counts'].decode())
        values = np.repeat(np.arange(len(runs)) % 2, runs).reshape(mask.shape, order='F')
        assert (values == mask).all()


def test_digit_scenes(tmp_path):
    folder = write_digit_scenes(tmp_path / 'scenes', 20, 1)
    file = folder / 'annotations' / 'instances_train.json'
    classes = tuple('0123456789')
    assert list(coco_findings(str(file), str(folder / 'train'), classes, 10, 10, 'data', masks='bitmaps')) == []


def test_how_a_pipeline_loads_masks():
    assert loads_masks([dict(type='LoadAnnotations', with_bbox=True)]) is None
    assert loads_masks([dict(type='LoadAnnotations', with_mask=True)]) == 'bitmaps'
    assert loads_masks([dict(type='A'), dict(type='LoadAnnotations', with_mask=True, poly2mask=False)]) == 'polygons'
