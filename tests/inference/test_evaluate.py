"""``python -m mmdet_stable evaluate``: the AP of mmdet's metric, whatever the order of the categories."""

import copy
import json

import pytest
from mmdet.evaluation import CocoMetric

import mmdet_stable
from mmdet_stable.__main__ import main
from mmdet_stable.datasets import write_digit_scenes
from tests.inference.models import saved, small, work_dir, write_config


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return write_digit_scenes(tmp_path_factory.mktemp('scenes') / 'digits', num_train=1, num_val=4)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return work_dir(tmp_path_factory.mktemp('digits'))


@pytest.fixture(scope='module')
def truth(scenes, model):
    """Ground truth that the untrained model partly finds: what it detects itself, a little beside."""
    detector = mmdet_stable.load(model, device='cpu')
    content = json.loads((scenes / 'annotations' / 'instances_val.json').read_text())
    content['annotations'] = []
    for image in content['images']:
        (sample,) = detector.predict(scenes / 'val' / image['file_name'])
        for index in range(0, 30, 4):
            x1, y1, x2, y2 = sample.pred_instances.bboxes[index].tolist()
            box = [x1 + 1, y1, x2 - x1, y2 - y1]
            number, label = len(content['annotations']) + 1, int(sample.pred_instances.labels[index])
            entry = dict(id=number, image_id=image['id'], category_id=label + 1, bbox=box, area=box[2] * box[3])
            content['annotations'].append(dict(entry, iscrowd=0))
    return content


def evaluate(model, *arguments):
    return main(['evaluate', str(model), *map(str, arguments), '--device', 'cpu', '--trust'])


def numbers(out):
    return json.loads((out / 'numbers.json').read_text())


def of_mmdets_metric(detector, annotations, folder):
    """Category ids are given by the order of the file, which here is that of the model's classes."""
    content = json.loads(annotations.read_text())
    metric = CocoMetric(ann_file=str(annotations), metric='bbox', classwise=True)
    metric.dataset_meta = dict(classes=detector.classes)
    for image in content['images']:
        (sample,) = detector.predict(folder / image['file_name'])
        sample.set_metainfo(dict(img_id=image['id']))
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(content['images']))


def test_ap_is_that_of_mmdets_metric(scenes, model, truth, tmp_path, capsys):
    """Categories may have any ids and order: they are known by name."""
    content = copy.deepcopy(truth)
    own = tmp_path / 'own.json'
    own.write_text(json.dumps(content))
    expected = of_mmdets_metric(mmdet_stable.load(model, device='cpu'), own, scenes / 'val')
    assert 0 < expected['coco/bbox_mAP'] < 1
    content['categories'] = [dict(id=100 - entry['id'], name=entry['name']) for entry in content['categories']][::-1]
    for entry in content['annotations']:
        entry['category_id'] = 100 - entry['category_id']
    own.write_text(json.dumps(content))
    assert evaluate(model, own, scenes / 'val', '--out', tmp_path / 'out') == 0
    found = numbers(tmp_path / 'out')['bbox']
    for name, key in (('AP', 'mAP'), ('AP50', 'mAP_50'), ('AP75', 'mAP_75'), ('APs', 'mAP_s')):
        assert found[name] == pytest.approx(100 * expected[f'coco/bbox_{key}'], abs=0.051), name
    for name, of_class in found['classes'].items():
        precision = expected.get(f'coco/{name}_precision')
        assert of_class['AP'] is None or of_class['AP'] == pytest.approx(100 * precision, abs=0.051)
    assert 0 < found['LaECE0'] <= 100 and 0 < found['oLRP'] <= 100 and found['reliability']
    output = capsys.readouterr().out
    assert f'boxes: AP {found["AP"]:.1f}' in output and f'LaECE0 {found["LaECE0"]:.1f}' in output
    assert (tmp_path / 'out' / 'reliability.png').stat().st_size > 1000
    results = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert [image['id'] for image in results['images']] == [image['id'] for image in content['images']]


def test_ids_may_begin_at_0(scenes, model, truth, tmp_path):
    """As Roboflow's do; pycocotools alone would not count what is found of annotation 0."""
    content = copy.deepcopy(truth)
    found = []
    own = tmp_path / 'own.json'
    for down in (0, 1):
        for image in content['images']:
            image['id'] -= down
        for entry in content['annotations']:
            entry.update(id=entry['id'] - down, image_id=entry['image_id'] - down)
        own.write_text(json.dumps(content))
        assert evaluate(model, own, scenes / 'val', '--out', tmp_path / 'out') == 0
        found.append(numbers(tmp_path / 'out')['bbox'])
    assert min(image['id'] for image in content['images']) == min(e['id'] for e in content['annotations']) == 0
    assert found[0] == found[1] and found[0]['AP'] > 0


def test_the_validation_set_of_the_config(scenes, tmp_path):
    cfg = small('demo_digits.py')
    cfg.val_dataloader.dataset.data_root = str(scenes)
    run = tmp_path / 'run'
    saved(cfg, run)
    write_config(cfg, run / 'demo_digits.py')
    assert evaluate(run, '--out', tmp_path / 'out', '--batch-size', 2) == 0
    assert numbers(tmp_path / 'out')['images'] == 4


def test_masks(scenes, tmp_path, capsys):
    cfg = small('demo_digits_masks.py')
    checkpoint = saved(cfg, tmp_path)
    write_config(cfg, tmp_path / 'epoch_1.py')
    data = [scenes / 'annotations' / 'instances_val.json', scenes / 'val']
    assert evaluate(checkpoint, *data, '--out', tmp_path / 'out') == 0
    assert set(numbers(tmp_path / 'out')) == {'data', 'images', 'bbox', 'segm'}
    assert 'masks: AP' in capsys.readouterr().out


def test_classes_that_the_model_does_not_know(scenes, model, tmp_path, capsys):
    content = json.loads((scenes / 'annotations' / 'instances_val.json').read_text())
    content['categories'][0]['name'] = 'zero'
    own = tmp_path / 'own.json'
    own.write_text(json.dumps(content))
    assert evaluate(model, own, scenes / 'val', '--out', tmp_path / 'out') == 0
    assert 'not evaluated, as the model does not know them: zero' in capsys.readouterr().err
    assert 'zero' not in numbers(tmp_path / 'out')['bbox']['classes']
    content['categories'] = [dict(id=1, name='cat')]
    own.write_text(json.dumps(content))
    assert evaluate(model, own, scenes / 'val', '--out', tmp_path / 'out') == 1
    assert 'own.json has the classes cat; the model knows none of them' in capsys.readouterr().err


@pytest.mark.parametrize(
    'data,message',
    [
        ([], 'data/digit_scenes/annotations/instances_val.json: there is no such annotation file'),
        (['a.json', 'b', 'c'], 'DATA is an annotation file and a folder of images, got'),
        (['none.json', '.'], 'none.json: there is no such annotation file'),
    ],
)
def test_data_that_is_not_there(data, message, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate(model, *data) == 1
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'content,message',
    [
        ([1], 'own.json is no COCO file: it holds a list'),
        (dict(images=[], annotations=[]), 'own.json is no COCO file: it has no list "categories"'),
        (dict(annotations=[]), 'own.json has no box of the classes that the model knows'),
    ],
)
def test_files_of_other_kinds(content, message, scenes, model, tmp_path, capsys):
    if set(content) == {'annotations'}:
        content = {**json.loads((scenes / 'annotations' / 'instances_val.json').read_text()), **content}
    (tmp_path / 'own.json').write_text(json.dumps(content))
    assert evaluate(model, tmp_path / 'own.json', scenes / 'val', '--out', tmp_path / 'out') == 1
    assert message in capsys.readouterr().err and not list(tmp_path.glob('out/*.json'))


def test_what_tools_leave_out_is_filled_in(scenes, model, tmp_path, capsys):
    """Sizes, areas, and numbers of annotations and categories; nothing but the result is printed."""
    file = scenes / 'annotations' / 'instances_val.json'
    content = json.loads(file.read_text())
    for name, fields in (('images', ('width', 'height')), ('annotations', ('id', 'area', 'iscrowd'))):
        for entry in content[name]:
            for field in fields:
                entry.pop(field)
    for entry, key in (
        *((entry, 'id') for entry in content['categories']),
        *((entry, 'category_id') for entry in content['annotations']),
    ):
        entry[key] = f'number {entry[key]}'
    (tmp_path / 'own.json').write_text(json.dumps(content))
    assert evaluate(model, tmp_path / 'own.json', scenes / 'val', '--out', tmp_path / 'a') == 0
    assert capsys.readouterr().out.startswith('boxes: ')
    assert evaluate(model, file, scenes / 'val', '--out', tmp_path / 'b') == 0
    assert numbers(tmp_path / 'a')['bbox'] == numbers(tmp_path / 'b')['bbox']


def test_missing_images_are_named(scenes, model, tmp_path, capsys):
    annotations = scenes / 'annotations' / 'instances_val.json'
    assert evaluate(model, annotations, tmp_path, '--out', tmp_path / 'out') == 1
    assert f'error: 4 of 4 images do not exist, as {tmp_path}/000001.png' in capsys.readouterr().err
