"""Digit scenes in the layouts of YOLO and Pascal VOC."""

import json
import shutil
from collections import defaultdict

import yaml

from mmdet_stable.datasets import DIGIT_CLASSES, write_digit_scenes

PARTS = ('train', 'val')


def coco_scenes(folder, num_train=4, num_val=2):
    return write_digit_scenes(folder, num_train, num_val)


def annotated_images(scenes, part):
    """Image entry and its (label, xywh box) pairs, for each image of a part."""
    content = json.loads((scenes / 'annotations' / f'instances_{part}.json').read_text())
    boxes = defaultdict(list)
    for annotation in content['annotations']:
        boxes[annotation['image_id']].append((annotation['category_id'] - 1, annotation['bbox']))
    return [(image, boxes[image['id']]) for image in content['images']]


def yolo_scenes(scenes, folder, polygons=False):
    """``images/train``, ``labels/train`` and so on; images without digits get no label file."""
    for part in PARTS:
        (folder / 'images' / part).mkdir(parents=True)
        (folder / 'labels' / part).mkdir(parents=True)
        for image, boxes in annotated_images(scenes, part):
            name, (width, height) = image['file_name'], (image['width'], image['height'])
            shutil.copy(scenes / part / name, folder / 'images' / part / name)
            lines = []
            for label, (x, y, w, h) in boxes:
                if polygons:
                    corners = (x, y, x + w, y, x + w, y + h, x, y + h)
                    numbers = [value / (height if index % 2 else width) for index, value in enumerate(corners)]
                else:
                    numbers = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                lines.append(' '.join(map(str, (label, *numbers))))
            if lines:
                (folder / 'labels' / part / name).with_suffix('.txt').write_text('\n'.join(lines))
    content = dict(path='.', train='images/train', val='images/val', names=dict(enumerate(DIGIT_CLASSES)))
    (folder / 'data.yaml').write_text(yaml.safe_dump(content))
    return folder


def voc_scenes(scenes, folder):
    """``Annotations``, ``JPEGImages`` and ``ImageSets/Main``, with pixels that count from 1."""
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (folder / name).mkdir(parents=True)
    for part in PARTS:
        stems = []
        for image, boxes in annotated_images(scenes, part):
            name = f'{part}_{image["file_name"]}'
            shutil.copy(scenes / part / image['file_name'], folder / 'JPEGImages' / name)
            objects = ''.join(
                f'<object><name>{DIGIT_CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>'
                f'<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>\n'
                for label, (x, y, w, h) in boxes
            )
            stem = name.rsplit('.', 1)[0]
            xml = f'<annotation>\n<filename>{name}</filename>\n{objects}</annotation>\n'
            (folder / 'Annotations' / f'{stem}.xml').write_text(xml)
            stems.append(stem)
        (folder / 'ImageSets' / 'Main' / f'{part}.txt').write_text('\n'.join(stems))
    return folder
