"""Which images a report shows, what it calls an error, and how its page fits a narrow window."""

import base64
import functools

import cv2
import numpy as np
import pytest
import torch
from pycocotools.mask import decode

from mmdet_stable.evaluation.detections import Boxes, right_and_found, run_lengths
from mmdet_stable.visualization import html
from mmdet_stable.visualization.detections import plot_judged, plot_truth
from mmdet_stable.visualization.output import inlined
from mmdet_stable.visualization.report import choose_examples, errors_of


def boxes(*lefts, labels=None, scores=None):
    """Boxes of 10 x 10 pixels."""
    labels = np.zeros(len(lefts), int) if labels is None else np.array(labels)
    corners = np.array([[left, 0, left + 10, 10] for left in lefts], np.float32).reshape(-1, 4)
    return Boxes(corners, labels, None if scores is None else np.array(scores, np.float32))


@pytest.mark.parametrize(
    'detected,right,found',
    [
        (boxes(0, 50, scores=[0.9, 0.8]), [True, True], [True, True]),
        (boxes(50, 0, scores=[0.9, 0.8]), [True, True], [True, True]),
        (boxes(1, 0, scores=[0.9, 0.8]), [True, False], [True, False]),  # twice: the better score counts
        (boxes(1, 0, scores=[0.8, 0.9]), [False, True], [True, False]),
        (boxes(0, 50, labels=[1, 0], scores=[0.9, 0.8]), [False, True], [False, True]),  # another class
        (boxes(3, 54, scores=[0.9, 0.8]), [True, False], [True, False]),  # IoU 0.54 and 0.43
        (boxes(scores=[]), [], [False, False]),
    ],
    ids=['both', 'other_order', 'twice', 'twice_reversed', 'class', 'place', 'nothing'],
)
def test_errors(detected, right, found):
    truth = boxes(0, 50)
    result = right_and_found(truth, detected)
    assert [values.tolist() for values in result] == [right, found]
    assert errors_of(truth, detected) == (found.count(False), right.count(False))


def test_a_detection_takes_the_best_object_that_is_free():
    right, found = right_and_found(boxes(0, 2), boxes(2, 1, scores=[0.9, 0.8]))
    assert right.all() and found.all()


def test_images_without_objects():
    assert errors_of(boxes(), boxes(0, scores=[0.5])) == (0, 1)
    assert errors_of(boxes(), boxes(scores=[])) == (0, 0)


def test_half_of_the_examples_have_errors():
    truths = {name: boxes(*range(number)) for number, name in enumerate('abcdefgh')}
    errors = dict(a=1, b=4, c=0, d=2, e=0, f=4, g=0, h=0)
    assert choose_examples(truths, errors, 6) == ['b', 'f', 'd', 'h', 'g', 'e']
    assert choose_examples(truths, errors, 3) == ['b', 'f', 'h']
    assert choose_examples(truths, dict.fromkeys(truths, 0), 3) == ['h', 'g', 'f']
    assert choose_examples(truths, {**dict.fromkeys(truths, 1), 'c': 0}, 4) == ['a', 'b', 'd', 'c']
    assert choose_examples(dict(a=boxes()), dict(a=1), 4) == ['a']


def test_pictures_are_large_enough_for_their_text():
    image, truth = np.zeros((40, 80, 3), np.uint8), boxes(0, 50)
    for draw in (
        lambda output: plot_truth(image, truth, ['a'], output),
        lambda output: plot_judged(image, truth, boxes(0, 20, scores=[0.9, 0.8]), ['a'], output),
    ):
        assert inlined(draw).startswith('data:image/jpeg;base64,')


def test_only_tables_of_many_columns_hint_at_scrolling():
    assert 'class="hint"' in html.table(['name', *'abcd'], [])
    assert 'class="hint"' not in html.table(['name', *'abc'], [])
    assert 'class="hint"' in html.table(['setting', 'a', 'b'], [], text=True)
    assert 'class="hint"' not in html.table(['', ''], [], text=True)


def test_long_text_scrolls_within_its_cell():
    page = html.table(['', ''], [['a', 'x' * 500], ['b', '<x>']], text=True)
    assert f'<td><div>{"x" * 500}</div></td>' in page and '<td>&lt;x&gt;</td>' in page


def test_examples_stand_beside_each_other_where_there_is_room():
    page = html.examples([('a <b>', ['1', '2', '3']), ('c', ['4', '5', '6'])])
    assert '--panels: 3' in page and '<h3>a &lt;b&gt;</h3>' in page and page.count('class="panels"') == 2


def test_masks_are_drawn_where_there_are_some():
    masks = torch.zeros(2, 40, 80, dtype=torch.bool)
    masks[0, :, :40] = masks[1, :, 60:] = True
    truth = boxes(0, 50)._replace(masks=run_lengths(masks))
    detected = boxes(0, 20, scores=[0.9, 0.2])._replace(masks=run_lengths(masks))
    assert np.array_equal(decode(detected.above(0.5).masks).transpose(2, 0, 1), masks[:1])

    def drawn(draw):
        jpeg = base64.b64decode(inlined(draw).split(',')[1])
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1), cv2.COLOR_BGR2RGB)[-10, [100, 480, 600]]

    image = np.full((40, 80, 3), 255, np.uint8)
    for plot in (
        functools.partial(plot_truth, image, truth, ['a']),
        functools.partial(plot_judged, image, truth, detected, ['a']),
    ):
        left, middle, right = drawn(plot).astype(int)
        assert middle.min() > 240 > left.max() and right.min() < 200
    left, _, right = drawn(functools.partial(plot_judged, image, truth, detected, ['a'])).astype(int)
    assert left[1] > left[0] + 30 and right[0] > right[1] + 30  # green, red
