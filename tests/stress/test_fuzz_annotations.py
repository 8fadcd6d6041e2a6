"""Random annotation files: each is either found faulty, or mmdet reads it, its labels are in range and its boxes are
finite."""

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from PIL import Image

from mmdet_stable.datasets.checks import FATAL, dataset_findings
from mmdet_stable.datasets.coco_checks import coco_findings

NUMBERS = st.one_of(st.integers(-50, 5000), st.floats(width=32), st.sampled_from([1e308, -1e308, 0, 1]))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=4),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=4), values, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ['id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'file_name', 'width', 'height', 'name']
)


def good():
    return dict(
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
        images=[dict(id=1, file_name='1.png', width=40, height=30), dict(id=2, file_name='2.png', width=40, height=30)],
        annotations=[
            dict(id=i + 1, image_id=1 + i % 2, category_id=1 + i % 2, bbox=[1, 2, 10, 10], area=100, iscrowd=0)
            for i in range(3)
        ],
    )


@st.composite
def changed(draw):
    """A good file with up to three changes: entries, fields or whole lists replaced, removed or repeated."""
    content = good()
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(sorted(content)))
        if not isinstance(content[part], list) or not content[part]:
            continue
        index = draw(st.integers(0, len(content[part]) - 1))
        change = draw(st.sampled_from(['field', 'field', 'field', 'box', 'remove', 'entry', 'list', 'repeat']))
        entry = content[part][index]
        if change == 'field' and isinstance(entry, dict):
            content[part][index] = {**entry, draw(KEYS): draw(VALUES)}
        elif change == 'box' and part == 'annotations' and isinstance(entry, dict):
            content[part][index] = {**entry, 'bbox': draw(st.lists(NUMBERS, min_size=4, max_size=4))}
        elif change == 'remove' and isinstance(entry, dict) and entry:
            content[part][index] = {key: entry[key] for key in list(entry)[1:]}
        elif change == 'entry':
            content[part][index] = draw(VALUES)
        elif change == 'repeat':
            content[part].append(entry)
        elif change == 'list':
            content[part] = draw(VALUES)
    return content


def check(text):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'train.json'
        file.write_bytes(text)
        for name in ('1.png', '2.png'):
            Image.new('RGB', (40, 30)).save(Path(folder) / name)
        findings = list(coco_findings(str(file), folder, ('a', 'b'), 2, 10, 'data'))
        for finding in findings:
            assert (
                (finding.remedy and str(file) in (finding.file, *str(finding).split(': ')))
                or finding.file
                or finding.key
            )
        if findings:
            return False
        dataset = DATASETS.build(
            dict(
                type='CocoDataset',
                ann_file=str(file),
                metainfo=dict(classes=('a', 'b')),
                data_prefix=dict(img=folder),
                pipeline=[],
            )
        )
        assert not [finding for finding in dataset_findings(dataset, 2, 'data') if finding.kind in FATAL]
        return True


def test_the_good_file_is_good():
    assert check(json.dumps(good()).encode())


@given(changed())
def test_changed_files(content):
    check(json.dumps(content).encode())


@given(st.data())
def test_damaged_files(data):
    text = bytearray(json.dumps(good()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(text[: data.draw(st.integers(0, len(text)))]))


@given(VALUES)
def test_any_json(content):
    assert not check(json.dumps(content).encode())
