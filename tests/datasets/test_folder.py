"""Data folders of all layouts are found, and read as what they hold; faults name file and line."""

import codecs
import json
import shutil

import pytest
import yaml

from mmdet_stable.datasets import DIGIT_CLASSES
from mmdet_stable.datasets.coco_checks import coco_findings
from mmdet_stable.datasets.folder import DataError, data_statistics, describe, fault_lines, read_data
from tests.datasets.layouts import coco_scenes, voc_scenes, yolo_scenes


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return coco_scenes(tmp_path_factory.mktemp('data') / 'scenes', num_train=6, num_val=3)


@pytest.fixture
def own(scenes, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(scenes, tmp_path / 'own')


def truth(split):
    """Boxes and classes of each image, by the file's content."""
    content = json.loads(split.ann_file.read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    found = {}
    for image in content['images']:
        boxes = [a for a in content['annotations'] if a['image_id'] == image['id']]
        key = (split.image_folder / image['file_name']).read_bytes(), image['width'], image['height']
        found[key] = sorted((names[a['category_id']], *map(round, a['bbox'])) for a in boxes)
    return found


def change(file, function):
    content = json.loads(file.read_text())
    function(content)
    file.write_text(json.dumps(content))


def test_coco_by_its_usual_names(scenes, tmp_path):
    data = read_data(scenes, tmp_path / 'scratch')
    assert data.layout == 'COCO' and data.classes == DIGIT_CLASSES and not data.remarks
    assert data.train == (scenes / 'annotations' / 'instances_train.json', scenes / 'train')
    assert data.val == (scenes / 'annotations' / 'instances_val.json', scenes / 'val')
    assert not (tmp_path / 'scratch').exists()


@pytest.mark.parametrize('kind', ['boxes', 'polygons', 'voc'])
def test_other_layouts_hold_the_same(kind, scenes, tmp_path):
    if kind == 'voc':
        folder = voc_scenes(scenes, tmp_path / 'data')
    else:
        folder = yolo_scenes(scenes, tmp_path / 'data', polygons=kind == 'polygons')
    data, expected = read_data(folder, tmp_path / 'scratch'), read_data(scenes, tmp_path / 'scratch')
    for part, other in ((data.train, expected.train), (data.val, expected.val)):
        assert part.ann_file.parent == tmp_path / 'scratch' and part.image_folder.is_relative_to(folder)
        assert truth(part) == truth(other)
    assert set(data.classes) <= set(DIGIT_CLASSES) and list(data.classes) == sorted(data.classes)
    assert fault_lines(data) == ['  checked: no faults found']


def test_one_file_is_split_by_the_seed(own, tmp_path):
    (own / 'annotations' / 'instances_val.json').unlink()
    found = [read_data(own, tmp_path / str(seed) / name, seed) for seed, name in ((1, 'a'), (1, 'b'), (2, 'a'))]
    assert len(truth(found[0].train)) == 5 and len(truth(found[0].val)) == 1
    assert not truth(found[0].train).keys() & truth(found[0].val).keys()
    assert truth(found[0].val) == truth(found[1].val)
    assert '1 of 6 images were drawn for it (seed 1)' in found[0].remarks[0]
    assert any(truth(found[0].val) != truth(read_data(own, tmp_path / f'{s}', s).val) for s in range(3, 9))


def test_roboflow_coco(own, tmp_path):
    for part, folder in (('train', 'train'), ('val', 'valid')):
        (own / part).rename(own / folder)
        file = own / 'annotations' / f'instances_{part}.json'
        # Its category 0 is a name for all of them, and has no boxes.
        change(file, lambda content: content['categories'].insert(0, dict(id=0, name='digits', supercategory='none')))
        change(file, lambda content: [c.update(supercategory='digits') for c in content['categories'][1:]])
        file.rename(own / folder / '_annotations.coco.json')
    (own / 'annotations').rmdir()
    data = read_data(own, tmp_path / 'scratch')
    assert data.classes == DIGIT_CLASSES and '"digits" is a group' in data.remarks[0]
    assert data.val == (own / 'valid' / '_annotations.coco.json', own / 'valid')
    assert fault_lines(data) == ['  checked: no faults found']


def test_what_tools_leave_out_is_filled_in(own, tmp_path):
    file = own / 'annotations' / 'instances_train.json'

    def strip(content):
        for image in content['images']:
            del image['width'], image['height']
        for annotation in content['annotations']:
            del annotation['area'], annotation['iscrowd'], annotation['id']

    expected, before = truth(read_data(own, tmp_path / 'scratch').train), file.read_bytes()
    change(file, strip)
    stripped = file.read_bytes()
    data = read_data(own, tmp_path / 'scratch')
    assert truth(data.train) == expected and stripped == file.read_bytes() != before
    assert all(word in ' '.join(data.remarks) for word in ('width and height of 6', 'area was', 'iscrowd', 'numbered'))
    assert fault_lines(data) == ['  checked: no faults found']


@pytest.mark.parametrize('own_id', [lambda number: number - 1, lambda number: f'box {number}'])
def test_ids_that_pycocotools_do_not_take(own_id, own, tmp_path):
    """As Roboflow's, which begin at 0: what is found of annotation 0 would not be counted."""

    def renumber(content):
        for annotation in content['annotations']:
            annotation['id'] = own_id(annotation['id'])

    change(own / 'annotations' / 'instances_val.json', renumber)
    data = read_data(own, tmp_path / 'scratch')
    ids = [annotation['id'] for annotation in json.loads(data.val.ann_file.read_text())['annotations']]
    assert min(ids) == 1 and len(set(ids)) == len(ids)
    assert 'numbered from 1' in ' '.join(data.remarks) and data.train.ann_file.name == 'instances_train.json'


def test_what_tools_write_as_nothing_is_filled_in(own, tmp_path):
    expected = truth(read_data(own, tmp_path / 'a').train)
    file = own / 'annotations' / 'instances_train.json'
    change(file, lambda content: content['images'][0].update(width=None) or content['images'][1].update(height=0))
    change(file, lambda content: content['annotations'][0].update(area=None, iscrowd=None, id=None))
    data = read_data(own, tmp_path / 'b')
    assert truth(data.train) == expected and fault_lines(data) == ['  checked: no faults found']
    assert len(data.remarks) == 4 and 'width and height of 2 images' in data.remarks[0]


def test_numbers_that_pycocotools_or_mmdet_refuse(own, tmp_path):
    """Annotations of the same number, as in files that were put together, and categories with names for numbers."""
    expected = truth(read_data(own, tmp_path / 'a').train)

    def name(content):
        content['annotations'][1]['id'] = content['annotations'][0]['id']
        for entry, key in (
            *((c, 'id') for c in content['categories']),
            *((a, 'category_id') for a in content['annotations']),
        ):
            entry[key] = f'number {entry[key]}'

    change(own / 'annotations' / 'instances_train.json', name)
    data = read_data(own, tmp_path / 'b')
    assert truth(data.train) == expected and fault_lines(data) == ['  checked: no faults found']
    found = annotations(data.train)
    assert len({a['id'] for a in found}) == len(found) and all(isinstance(a['category_id'], int) for a in found)


def test_categories_of_the_same_name_are_one(own, tmp_path):
    """Roboflow writes the project as a category before its classes, also where one of them is called like it."""
    expected = truth(read_data(own, tmp_path / 'a').train)
    group = dict(id=99, name=DIGIT_CLASSES[3], supercategory='none')
    for name in ('train', 'val'):
        change(own / 'annotations' / f'instances_{name}.json', lambda content: content['categories'].insert(0, group))
    assert any('stands there 2 times' in line for line in check(own))
    data = read_data(own, tmp_path / 'b')
    assert truth(data.train) == expected and fault_lines(data) == ['  checked: no faults found']
    assert sorted(data.classes) == sorted(DIGIT_CLASSES) and '"3", were made one' in data.remarks[0]


def check(folder):
    """What the tool for config files says of the training part."""
    files = folder / 'annotations' / 'instances_train.json', folder / 'train'
    return [str(finding) for finding in coco_findings(*map(str, files), None, None, None, '')]


@pytest.mark.parametrize(
    'part,entry,problem',
    [
        ('images', dict(id=[1]), r'images\[0\].id: is \[1\]'),
        ('images', dict(file_name=3), r'images\[0\].file_name: is 3'),
        ('images', dict(file_name=None), r'images\[0\]: has no file_name'),
        ('images', dict(width='640'), r"images\[0\].width: is '640'"),
        ('categories', dict(name=['a']), r"categories\[0\].name: is \['a'\]"),
        ('categories', dict(id=['a']), r"categories\[0\].id: is \['a'\]"),
        ('categories', dict(id=2), r'categories: 0 and 1 both have the id 2'),
        ('annotations', dict(category_id=[1]), r'annotations\[0\].category_id: is \[1\]'),
        ('annotations', dict(bbox=None), r'annotations\[0\]: has no bbox'),
        ('annotations', dict(bbox=['1', '2', '3', '4']), r"annotations\[0\].bbox: is \['1', .*, not four numbers"),
        ('annotations', dict(bbox=[1, 2, 3], area=None), r'annotations\[0\].bbox: is \[1, 2, 3\], not four numbers'),
    ],
)
def test_values_of_other_types(part, entry, problem, own, tmp_path):
    change(own / 'annotations' / 'instances_train.json', lambda content: content[part][0].update(entry))
    with pytest.raises(DataError, match=f'instances_train.json, {problem}'):
        read_data(own, tmp_path)


def test_boxes_of_unknown_categories(own, tmp_path):
    def forget(content):
        for annotation in content['annotations']:
            annotation['category_id'] = str(annotation['category_id'])

    for name in ('train', 'val'):
        change(own / 'annotations' / f'instances_{name}.json', forget)
    with pytest.raises(DataError, match=r"(?s)no image for training has a box .* x category: .*'\d+' is the id of no"):
        fault_lines(read_data(own, tmp_path))


def test_categories_of_validation_follow_training(own, tmp_path):
    file = own / 'annotations' / 'instances_val.json'
    expected = truth(read_data(own, tmp_path / 'scratch').val)
    change(file, lambda content: content['categories'].reverse())
    data = read_data(own, tmp_path / 'scratch')
    categories = json.loads(data.val.ann_file.read_text())['categories']
    assert [category['name'] for category in categories] == list(DIGIT_CLASSES)
    assert truth(data.val) == expected and 'order of training' in data.remarks[0]
    change(file, lambda content: [c.update(name=f'new {c["name"]}') for c in content['categories']])
    with pytest.raises(DataError, match=r'has boxes of new .*, which .*instances_train.json does not have'):
        read_data(own, tmp_path / 'scratch')


def test_two_files(own, tmp_path):
    files = [own / 'annotations' / f'instances_{part}.json' for part in ('train', 'val')]
    for file in files:
        file.rename(own / f'{file.stem}_own.json')
    data = read_data([own / f'{file.stem}_own.json' for file in files], tmp_path)
    assert data.train.image_folder == own / 'train' and data.val.image_folder == own / 'val'


@pytest.mark.parametrize('path', ['../train/images', 'train/images', 'list.txt'])
def test_roboflow_yolo(path, scenes, tmp_path):
    folder = yolo_scenes(scenes, tmp_path / 'made')
    for part in ('train', 'val'):
        (folder / part).mkdir()
        for kind in ('images', 'labels'):
            (folder / kind / part).rename(folder / part / kind)
    images = sorted((folder / 'train' / 'images').iterdir())
    elsewhere = images[0].rename(tmp_path / 'elsewhere.png')  # labels are found by the link, not by where it leads
    images[0].symlink_to(elsewhere)
    (folder / 'list.txt').write_text('\n'.join(f'./train/images/{image.name}' for image in images))
    content = dict(train=path, val=[path.replace('train', 'val')], nc=10, names=list(DIGIT_CLASSES))
    if path == 'list.txt':
        del content['val']
    (folder / 'data.yaml').write_text(yaml.safe_dump(content))
    data = read_data(folder / 'data.yaml', tmp_path / 'scratch')
    assert len(truth(data.train)) + len(truth(data.val)) == (6 if path == 'list.txt' else 9)
    assert {**truth(data.train), **truth(data.val)}.items() >= truth(read_data(scenes, tmp_path).train).items()
    assert any('drawn' in remark for remark in data.remarks) == (path == 'list.txt')


@pytest.mark.parametrize(
    'line,problem',
    [
        ('3 0.5 0.5 0.1', 'has 4 numbers; a box has 5, a polygon 7 or more'),
        ('10 0.5 0.5 0.1 0.1', 'label 10 is no whole number from 0 to 9'),
        ('3 80 64 20 20', 'has coordinates outside of 0 to 1'),
        ('3 0.5 nan 0.1 0.1', 'has coordinates outside of 0 to 1'),
        ('three 0.5 0.5 0.1 0.1', 'holds something else than numbers'),
    ],
)
def test_broken_lines_of_yolo(line, problem, scenes, tmp_path):
    folder = yolo_scenes(scenes, tmp_path / 'made')
    file = sorted((folder / 'labels' / 'train').iterdir())[0]
    file.write_text(f'0 0.5 0.5 0.2 0.2\n\n{line}\n')
    with pytest.raises(DataError) as error:
        read_data(folder, tmp_path)
    assert f'{file}, line 3: ' in str(error.value) and problem in str(error.value)


@pytest.mark.parametrize(
    'settings,problem',
    [
        (dict(names=None), '"names" is None'),
        (dict(names={1: 'a'}), 'number them from 0'),
        (dict(names=['yes', False]), '"names" has False, as YAML reads yes, no'),
        (dict(path=3, train='nowhere'), '"train" is nowhere, which does not exist'),
        (dict(names=['a', 'a']), '"names" has a more than once'),
        (dict(nc=3), '"nc" is 3, but "names" has 10 classes'),
        (dict(train='nowhere'), '"train" is nowhere, which does not exist; looked at'),
        (dict(train=None), 'has no "train"'),
        (dict(train='labels/train'), 'where there are no images'),
    ],
)
def test_broken_descriptions_of_yolo(settings, problem, scenes, tmp_path):
    folder = yolo_scenes(scenes, tmp_path / 'made')
    content = yaml.safe_load((folder / 'data.yaml').read_text())
    (folder / 'data.yaml').write_text(yaml.safe_dump({**content, **settings}))
    with pytest.raises(DataError) as error:
        read_data(folder, tmp_path)
    assert problem in str(error.value) and 'data.yaml' in str(error.value)


def test_yolo_without_any_label(scenes, tmp_path):
    folder = yolo_scenes(scenes, tmp_path / 'made')
    shutil.rmtree(folder / 'labels' / 'val')
    with pytest.raises(DataError, match=r'none of the 3 images of "val" has labels: .*txt does not exist'):
        read_data(folder, tmp_path)


def edit(folder, old, new):
    file = next(path for path in sorted((folder / 'Annotations').iterdir()) if '<object>' in path.read_text())
    file.write_text(file.read_text().replace(old, new, 1))
    return file


def test_broken_files_of_voc(scenes, tmp_path):
    folder = voc_scenes(scenes, tmp_path / 'made')
    edit(folder, '<xmin>', '<xmin>left')
    with pytest.raises(DataError, match=r'xml, object 0: bndbox is .*left.*, not four numbers'):
        read_data(folder, tmp_path)
    file = edit(folder, '</object>', '')
    with pytest.raises(DataError) as error:
        read_data(folder, tmp_path)
    assert f'{file}, line ' in str(error.value) and 'is no XML' in str(error.value)
    (folder / 'ImageSets' / 'Main' / 'val.txt').write_text('missing 1')
    with pytest.raises(DataError, match=r'val.txt, line 1: .*missing.xml does not exist'):
        read_data(folder, tmp_path)


def test_voc_that_counts_from_0_or_knows_difficult_objects(scenes, tmp_path):
    folder = voc_scenes(scenes, tmp_path / 'made')
    before = [a['bbox'] for a in annotations(read_data(folder, tmp_path).train)]
    file = edit(folder, '<difficult>0', '<difficult>1')
    data = read_data(folder, tmp_path)
    assert '1 objects are marked as difficult' in ' '.join(data.remarks)
    assert sum(a['iscrowd'] for a in annotations(data.train)) == 1 and file.is_file()
    text = file.read_text()
    start, end = text.index('<xmin>'), text.index('</xmin>')
    file.write_text(text[:start] + '<xmin>0' + text[end:])
    data = read_data(folder, tmp_path)
    after = [a['bbox'] for a in annotations(data.train)]
    assert 'begin at pixel 0' in ' '.join(data.remarks)
    moved = [(b[0] - a[0], b[1] - a[1], b[2] - a[2]) for a, b in zip(before, after)]
    assert sum(move == (1, 1, -1) for move in moved) == len(moved) - 1


def annotations(split):
    return json.loads(split.ann_file.read_text())['annotations']


def test_broken_json(own, tmp_path):
    file = own / 'annotations' / 'instances_train.json'
    change(file, lambda content: content['annotations'][3].pop('bbox'))
    with pytest.raises(DataError, match=r'instances_train.json, annotations\[3\]: has no bbox'):
        read_data(own, tmp_path)
    file.write_text('{\n"images": [,]}')
    with pytest.raises(DataError, match=r'instances_train.json, line 2, column 12: is no JSON'):
        read_data(own, tmp_path)


def test_images_that_are_elsewhere(own, tmp_path):
    file = own / 'annotations' / 'instances_train.json'
    shutil.rmtree(own / 'train')
    with pytest.raises(DataError, match=r'image-missing: .*own/val/00000[456].png'):  # val has the other names
        fault_lines(read_data(own, tmp_path))
    shutil.rmtree(own / 'val')
    with pytest.raises(DataError, match=r'the images of .*instances_train.json, e.g. 000001.png, are in none of these'):
        read_data(file, tmp_path)


def test_nothing_that_is_known(tmp_path):
    (tmp_path / 'pictures').mkdir()
    with pytest.raises(DataError) as error:
        read_data(tmp_path, tmp_path)
    assert all(word in str(error.value) for word in ('It has pictures/', 'COCO:', 'YOLO: data.yaml', 'Pascal VOC:'))
    for path, problem in ((tmp_path / 'no', 'do not exist'), (__file__, 'neither a folder, nor a COCO file')):
        with pytest.raises(DataError, match=problem):
            read_data(path, tmp_path)


def test_several_files_that_fit(own, tmp_path):
    shutil.copy(own / 'annotations' / 'instances_train.json', own / 'annotations' / 'instances_train2.json')
    with pytest.raises(DataError, match=r'several files that fit .*instances_train.json, .*instances_train2.json'):
        read_data(own, tmp_path)


def test_numbers(own, tmp_path):
    file = own / 'annotations' / 'instances_train.json'
    change(file, lambda content: content['annotations'][0].update(iscrowd=1))
    content = json.loads(file.read_text())
    found = data_statistics(read_data(own, tmp_path))
    assert (found.num_train, found.num_val, found.image_size, found.smallest_image) == (6, 3, (160, 128), (160, 128))
    assert sum(found.class_counts) == len(found.box_sides) == len(content['annotations']) - 1
    area = content['annotations'][1]['area']
    assert any(side == pytest.approx(area**0.5 / 160) for side in found.box_sides)
    assert found.box_side(0) == found.box_sides[0] and found.max_boxes <= 8
    lines = '\n'.join(describe(read_data(own, tmp_path)))
    assert 'COCO, 10 classes' in lines and 'train: 6 images' in lines and '160 x 128 (9)' in lines


def test_faults_are_listed_and_fatal_ones_stop(own, tmp_path):
    file = own / 'annotations' / 'instances_train.json'
    change(file, lambda content: content['annotations'][2].update(bbox=[5, 5, 0.2, 0.2]))
    (line,) = fault_lines(read_data(own, tmp_path))
    assert '1 x box-degenerate' in line and 'annotations[2].bbox' in line
    (own / 'train' / '000003.png').unlink()
    with pytest.raises(DataError, match=r'1 x image-missing: .*000003.png'):
        fault_lines(read_data(own, tmp_path))


def test_truncated_images_stop(own, tmp_path):
    """OpenCV fills up with grey, or reads nothing, by its version."""
    image = sorted((own / 'val').iterdir())[1]
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf'cannot go on with:\s+1 x image-truncated: .*{image.name}'):
        fault_lines(read_data(own, tmp_path))


def test_images_that_are_trained_and_validated_on(own, tmp_path):
    """By their place, however it is written: file names are the same in both parts of many data sets."""
    data = read_data(own, tmp_path)
    assert fault_lines(data) == ['  checked: no faults found']
    (own / 'link').symlink_to(own / 'train')
    for folder in ('train', 'link'):
        same = data._replace(val=data.val._replace(image_folder=own / folder))
        assert '  WARNING: 3 of 3 images for validation are also trained on, as ' in fault_lines(same)[-1]


def test_validation_without_any_box(own, tmp_path):
    """No epoch would be better than the first one."""
    change(own / 'annotations' / 'instances_val.json', lambda content: content['annotations'].clear())
    with pytest.raises(DataError, match=r'no image for validation has a box of .* AP needs some'):
        fault_lines(read_data(own, tmp_path))


def test_byte_order_marks_and_other_encodings(scenes, own, tmp_path):
    """Windows' editors write them."""
    expected = truth(read_data(own, tmp_path / 'a').train)
    kinds = dict(yolo=('data.yaml', 'labels/train/000001.txt'), voc=('ImageSets/Main/train.txt',))
    folders = dict(coco=own, yolo=yolo_scenes(scenes, tmp_path / 'yolo'), voc=voc_scenes(scenes, tmp_path / 'voc'))
    kinds['coco'] = ('annotations/instances_train.json',)
    for kind, folder in folders.items():
        for name in kinds[kind]:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(codecs.BOM_UTF8 + content)
            data = read_data(folder, tmp_path / 'b')
            assert truth(data.train) == expected and fault_lines(data) == ['  checked: no faults found']
            (folder / name).write_bytes(content + ' Körper'.encode('latin-1'))
            with pytest.raises(DataError, match=rf'{name} is no text in UTF-8 .*; save it again'):
                read_data(folder, tmp_path / 'b')
            (folder / name).write_bytes(content)


def test_training_without_any_box(own, tmp_path):
    change(own / 'annotations' / 'instances_train.json', lambda content: content['annotations'].clear())
    with pytest.raises(DataError, match='no image for training has a box'):
        fault_lines(read_data(own, tmp_path))
