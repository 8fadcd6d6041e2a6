"""The tools that look into models, in this process, on a tiny model that one run of tools/train.py has left behind."""

import csv
import importlib
import json
import sys

import cv2
import pytest

from mmdet_stable.evaluation import find_runs
from tests.tools.command_line import CONFIG, options, run
from tests.utils import ROOT


@pytest.fixture(scope='module')
def work_dirs(folder):
    """The work dirs of two seeds, of the names ``a`` and ``b``."""
    for seed, name in enumerate('ab'):
        arguments = ['--work-dir', folder / 'runs' / name, *options(folder, **{'randomness.seed': seed})]
        run(sys.executable, 'tools/train.py', CONFIG, *arguments)
    return folder / 'runs'


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Runs a tool's main, and gives its picture's size, its table and where it drew."""
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')

    def call(name, *arguments):
        out = tmp_path / 'figures' / f'{name}.png'
        module = importlib.import_module(name)
        module.main([*map(str, arguments), '--out', str(out)])
        with open(out.with_suffix('.csv'), newline='') as file:
            return cv2.imread(str(out)).shape[:2], list(csv.DictReader(file))

    return call


def test_unstable_score(tool, work_dirs, capsys):
    size, rows = tool('unstable_score', work_dirs, '--num-images', 3)
    assert size == (600, 900)
    assert [(row['model'], row['layer']) for row in rows] == [('demo_digits (1)', '1'), ('demo_digits (2)', '1')]
    assert all(0 <= float(row['unstable_score']) <= 100 for row in rows)
    assert f'demo_digits (2): layer 1: {float(rows[1]["unstable_score"]):.1f} %' in capsys.readouterr().out


def test_convergence(tool, work_dirs):
    _, rows = tool('convergence', work_dirs)
    assert [(row['name'], row['seed'], row['epoch']) for row in rows] == [
        ('demo_digits', '0', '1'),
        ('demo_digits', '1', '1'),
    ]


def test_score_alignment(tool, work_dirs, capsys):
    (_, width), rows = tool('score_alignment', work_dirs, '--names', 'A', 'B', '--top', 5, '--num-images', 2)
    assert width == 1200 and {row['model'] for row in rows} == {'A', 'B'}
    assert {len(row) for row in rows} == {3} and len(rows) in (10, 20)
    assert 'A: correlation of IoU and score ' in capsys.readouterr().out


def test_matching_trace(tool, work_dirs, folder):
    _, rows = tool('matching_trace', work_dirs / 'a', '--index', image_with_digits(folder))
    assert {row['layer'] for row in rows} == {'0', '1'} and all(0 <= float(row['iou']) <= 1 for row in rows)
    assert all(row['changed'] == '0' for row in rows if row['layer'] == '0')


def image_with_digits(folder):
    images = json.loads((folder / 'scenes' / 'annotations' / 'instances_val.json').read_text())['annotations']
    return images[0]['image_id'] - 1


@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_sampling_points(tool, work_dirs, folder, part):
    files = ['--model', work_dirs / 'a' / 'demo_digits.py', work_dirs / 'a' / 'epoch_1.pth']
    picture = folder / 'scenes' / 'train' / '000001.png'
    _, rows = tool('sampling_points', *files, '--part', part, '--image', picture)
    assert len(rows) == 8 * 3 * 4  # heads, levels, points
    assert sum(float(row['weight']) for row in rows) == pytest.approx(8, abs=0.01)


def test_compare_detections(tool, work_dirs, folder):
    _, rows = tool('compare_detections', work_dirs, '--num-images', 2, '--score-thr', 0.01)
    assert {row['source'] for row in rows} == {'ground truth', 'demo_digits (1)', 'demo_digits (2)'}
    assert all(row['score'] == '' for row in rows if row['source'] == 'ground truth')
    _, rows = tool('compare_detections', work_dirs / 'a', '--images', folder / 'scenes' / 'train', '--score-thr', 0)
    assert {row['source'] for row in rows} == {'demo_digits'} and len({row['image'] for row in rows}) == 8


def test_mistakes_are_explained(tool, work_dirs, tmp_path):
    for name, arguments, message in (
        ('unstable_score', [], 'no models: give work dirs, or --model'),
        ('unstable_score', [work_dirs, '--names', 'one'], "--names .'one'.: 2 are needed"),
        ('matching_trace', [work_dirs], 'one model at a time'),
        ('matching_trace', [work_dirs / 'a', '--index', 4], 'image 4: the data set has images 0 to 3'),
        ('convergence', [tmp_path], 'no curves to draw'),
        ('compare_detections', [work_dirs, '--images', tmp_path], 'no images there'),
    ):
        with pytest.raises(ValueError, match=message):
            tool(name, *arguments)


def test_help_has_an_example(tool, capsys):
    tools = ('unstable_score', 'convergence', 'score_alignment', 'matching_trace', 'sampling_points')
    for name in (*tools, 'compare_detections'):
        with pytest.raises(SystemExit):
            tool(name, '--help')
        assert f'python tools/analysis/{name}.py work_dirs/' in capsys.readouterr().out


def test_checkpoint_of_a_moved_work_dir(work_dirs, tmp_path):
    """The pointer that mmengine wrote names the old place."""
    moved = (work_dirs / 'b').rename(tmp_path / 'moved')
    try:
        ((log,), _) = find_runs([moved])
        assert log.checkpoint == moved / 'epoch_1.pth'
    finally:
        moved.rename(work_dirs / 'b')
