"""Every fault of annotation files and images is found, named and given a remedy; good data gives none."""

import json
import sys

import numpy as np
import pytest
from mmdet.registry import DATASETS
from PIL import Image

from mmdet_stable.datasets import coco_checks, write_digit_scenes
from mmdet_stable.datasets.checks import FATAL, REMEDIES, dataset_findings
from mmdet_stable.datasets.coco_checks import coco_findings
from tests.tools.command_line import CONFIG, options, run
from tests.utils import ROOT

CLASSES = ('a', 'b')


@pytest.fixture
def scene(tmp_path):
    """An annotation file of two good images with three boxes, as a dict, and the folder of the images."""
    for name in ('1.png', '2.jpg'):
        pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    boxes = [[1, 2, 10, 10], [5, 5, 20, 20], [0, 0, 40, 30]]
    content = dict(
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
        images=[dict(id=i + 1, file_name=name, width=40, height=30) for i, name in enumerate(('1.png', '2.jpg'))],
        annotations=[
            dict(id=i + 1, image_id=i % 2 + 1, category_id=i % 2 + 1, bbox=box, area=box[2] * box[3], iscrowd=0)
            for i, box in enumerate(boxes)
        ],
    )
    return content, tmp_path


def found(scene, num_classes=2, num_queries=10, classes=CLASSES, decode=False):
    content, folder = scene
    file = folder / 'train.json'
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return list(coco_findings(str(file), str(folder), classes, num_classes, num_queries, 'data', decode))


def test_good_data(scene):
    assert found(scene) == found(scene, decode=True) == []


NAN = float('nan')


@pytest.mark.parametrize(
    'change,kind,key',
    [
        (dict(bbox=[1, 2, NAN, 4]), 'box-not-finite', 'annotations[1].bbox'),
        (dict(bbox=[1, 2, 1e999, 4]), 'box-not-finite', 'annotations[1].bbox'),
        (dict(bbox=[1, 2, None, 4]), 'box-not-finite', 'annotations[1].bbox'),
        (dict(bbox=[1, 2, 3]), 'box-not-finite', 'annotations[1].bbox'),
        (dict(bbox=[9, 2, -4, 4]), 'box-inverted', 'annotations[1].bbox'),
        (dict(bbox=[1, 2, 0, 4]), 'box-degenerate', 'annotations[1].bbox'),
        (dict(area=0), 'box-degenerate', 'annotations[1].area'),
        (dict(bbox=[35, 2, 10, 4]), 'box-outside', 'annotations[1].bbox'),
        (dict(bbox=[-60, 2, 10, 4]), 'box-outside', 'annotations[1].bbox'),
        (dict(category_id=7), 'category', 'annotations[1].category_id'),
        (dict(image_id='x'), 'image-id', 'annotations[1].image_id'),
        (dict(bbox='1 2 3 4'), 'json', 'annotations[1].bbox'),
        (dict(category_id=[1]), 'json', 'annotations[1].category_id'),
        (dict(id=1), 'duplicate', 'annotations[].id'),
        (dict(id=0), 'annotation-id', 'annotations[1].id'),
        (dict(id='2'), 'annotation-id', 'annotations[1].id'),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_faults_of_annotations(scene, change, kind, key):
    scene[0]['annotations'][1].update(change)
    (finding,) = found(scene)
    assert (finding.kind, finding.key) == (kind, key) and finding.file.endswith('train.json')
    assert finding.remedy == REMEDIES[kind] and key in str(finding) and finding.remedy in str(finding)


def test_a_pixel_beyond_the_edge_is_rounding(scene):
    scene[0]['annotations'][0]['bbox'] = [-0.5, 0, 41, 30.5]
    assert found(scene) == []


@pytest.mark.parametrize('part', ['categories', 'images', 'annotations'])
@pytest.mark.parametrize('value', [None, {}, [3], 'missing', [{}]], ids=str)
def test_faults_of_structure(scene, part, value):
    content, _ = scene
    content[part] = value
    if value == 'missing':
        del content[part]
    assert any(finding.kind == 'json' and finding.key.startswith(part) for finding in found(scene))


@pytest.mark.parametrize('text', ['', '{"images": [', '[]', '\x00', '[' * 100000], ids=range(5))
def test_files_that_are_no_annotations(scene, text):
    (finding,) = found((text, scene[1]))
    assert finding.kind == 'json' and finding.file.endswith('train.json')


def test_missing_annotation_file(tmp_path):
    (finding,) = coco_findings(str(tmp_path / 'none.json'), '', CLASSES, 2, 10, 'data')
    assert finding.kind == 'json' and 'no such file' in finding.problem


@pytest.mark.parametrize(
    'name', ['../1.png', 'a/../../1.png', '/data/1.png', r'C:\\data\\1.png', 'C:/data/1.png', r'..\\1.png'], ids=str
)
def test_file_names_that_lead_out_of_the_folder(scene, name):
    scene[0]['images'][0]['file_name'] = name
    finding, *others = found(scene)
    assert finding.kind == 'image-outside' and finding.key == 'images[0].file_name' and repr(name) in finding.problem
    assert {other.kind for other in others} <= {'image-missing'}


def test_file_names_within_the_folder(scene):
    (scene[1] / 'sub..folder').mkdir()
    (scene[1] / '1.png').rename(scene[1] / 'sub..folder' / '..1.png')
    scene[0]['images'][0]['file_name'] = 'sub..folder/..1.png'
    assert found(scene) == []


def test_data_without_objects_or_images(scene):
    scene[0]['annotations'] = []
    assert [finding.kind for finding in found(scene)] == ['no-objects']
    scene[0]['images'] = []
    assert [finding.kind for finding in found(scene)] == ['no-images']


def test_boxes_that_are_not_finite_are_looked_for_quickly(scene, monkeypatch):
    content, folder = scene
    file = folder / 'train.json'
    file.write_text(json.dumps(content))
    monkeypatch.setattr(coco_checks, '_read', lambda file: pytest.fail('read'))
    assert list(coco_checks.not_finite_findings(str(file))) == []
    monkeypatch.undo()
    content['annotations'][2]['bbox'][3] = NAN
    content['images'][0]['file_name'] = 'NaN.png'
    file.write_text(json.dumps(content))
    (finding,) = coco_checks.not_finite_findings(str(file))
    assert (finding.kind, finding.key) == ('box-not-finite', 'annotations[2].bbox')


@pytest.mark.parametrize('soon_read', [0, coco_checks.SOON_READ])
def test_annotation_files_that_cannot_be_read(scene, monkeypatch, soon_read):
    """Whole ones, and large ones, of which only the ends are looked at."""
    monkeypatch.setattr(coco_checks, 'SOON_READ', soon_read)
    content, folder = scene
    file = folder / 'train.json'
    text = json.dumps(content)
    for good in (text, f'\n {text} \n'):
        file.write_text(good)
        assert coco_checks.unreadable(str(file)) is None
    for bad in ('', text[:-1], text[1:], 'x' * 200):
        file.write_text(bad)
        finding = coco_checks.unreadable(str(file))
        assert finding.kind == 'json' and finding.file == str(file) and finding.problem
        assert ('0 bytes' in str(finding)) == (bad == '')
    file.write_text('{}' + ' ' * 100)
    assert soon_read == 0 or coco_checks.unreadable(str(file)).problem == 'holds nothing'


def test_faults_of_classes_and_counts(scene):
    assert [finding.kind for finding in found(scene, num_classes=3)] == ['classes']
    assert [finding.kind for finding in found(scene, classes=('b', 'a'))] == ['classes']
    assert [finding.kind for finding in found(scene, classes='ab')] == ['classes']
    (crowded,) = found(scene, num_queries=1)
    assert crowded.kind == 'too-many-boxes' and crowded.key == 'annotations of image 1'
    scene[0]['images'][1]['file_name'] = '1.png'
    assert [finding.kind for finding in found(scene)] == ['duplicate']


def spoil(name, folder):
    """Put a bad file in the place of an image."""
    png, jpg = folder / '1.png', folder / '2.jpg'
    pixels = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) * 50
    if name == 'missing':
        png.unlink()
    elif name == 'folder':
        png.unlink()
        png.mkdir()
    elif name == 'text':
        png.write_text('not an image')
    elif name == 'empty':
        png.write_bytes(b'')
    elif name == 'truncated_png':
        png.write_bytes(png.read_bytes()[:-40])
    elif name == 'truncated_jpg':
        jpg.write_bytes(jpg.read_bytes()[:-100])
    elif name == 'damaged':
        data = bytearray(png.read_bytes())
        data[300:340] = b'\xff' * 40
        png.write_bytes(data)
    elif name == 'rgba':
        Image.open(png).convert('RGBA').save(png)
    elif name == 'grey':
        Image.open(png).convert('L').save(png)
    elif name == 'deep':
        Image.fromarray(pixels).save(png)
    elif name == 'size':
        Image.open(png).resize((41, 30)).save(png)
    elif name == 'on_its_side':
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(jpg).save(jpg, exif=exif)


@pytest.mark.parametrize(
    'name,kind',
    [
        ('missing', 'image-missing'),
        ('folder', 'image-missing'),
        ('text', 'image-unreadable'),
        ('empty', 'image-unreadable'),
        ('truncated_png', 'image-truncated'),
        ('truncated_jpg', 'image-truncated'),
        ('damaged', 'image-unreadable'),
        ('rgba', 'image-alpha'),
        ('grey', 'image-grey'),
        ('deep', 'image-16-bit'),
        ('size', 'image-size'),
        ('on_its_side', 'image-size'),
    ],
)
def test_faults_of_images(scene, name, kind):
    spoil(name, scene[1])
    (finding,) = found(scene, decode=name == 'damaged')
    assert finding.kind == kind and finding.key.startswith('images[')
    assert finding.file.endswith('2.jpg' if name in ('truncated_jpg', 'on_its_side') else '1.png')


def test_hook_and_tool_agree_on_what_mmdet_keeps(scene):
    """mmdet drops degenerate boxes itself; what it hands on is checked by the same rules."""
    content, folder = scene
    content['annotations'][1]['bbox'] = [35, 2, 10, 4]
    (of_file,) = found(scene)
    dataset = DATASETS.build(
        dict(
            type='CocoDataset',
            ann_file=str(folder / 'train.json'),
            metainfo=dict(classes=CLASSES),
            data_prefix=dict(img=str(folder)),
            pipeline=[],
        )
    )
    (of_dataset,) = dataset_findings(dataset, 2, 'data')
    assert of_dataset.kind == of_file.kind == 'box-outside' and 'box-outside' not in FATAL


class TestTool:
    TOOL = (sys.executable, 'tools/check_dataset.py', CONFIG)

    @pytest.fixture
    def folder(self, tmp_path):
        write_digit_scenes(tmp_path / 'scenes', num_train=2, num_val=2)
        return tmp_path

    def test_good_data(self, folder):
        output = run(*self.TOOL, '--decode', *options(folder))
        assert 'no faults found' in output and output.count('annotations/instances_train.json') == 1

    def test_faults(self, folder):
        gone = sorted((folder / 'scenes' / 'train').iterdir())[0]
        gone.unlink()
        file = folder / 'scenes' / 'annotations' / 'instances_val.json'
        file.write_text(file.read_text()[:-1])
        output = run(*self.TOOL, *options(folder), check=False)
        rows = [line.split(' | ') for line in output.splitlines() if ' | ' in line]
        assert [row[0] for row in rows] == ['image-missing', 'json'] and all(len(row) == 5 for row in rows)
        assert rows[0][1] == str(gone) and 'column' in rows[1][2] and '2 faults found' in output
        with pytest.raises(AssertionError, match='2 faults found'):  # by its exit status
            run(*self.TOOL, *options(folder))
        assert 'no faults found' in run(*self.TOOL, '--ignore', 'image-missing', 'json', *options(folder))


def test_every_kind_is_documented():
    page = (ROOT / 'docs' / 'reliability.md').read_text()
    assert not [kind for kind in REMEDIES if f'`{kind}`' not in page]
