"""The tools that look into models, in this process, on a tiny model that tools/train.py has left behind."""

import base64
import csv
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmdet_stable.evaluation import find_runs
from mmdet_stable.evaluation.pair_quality import MatchingTrace
from mmdet_stable.utils.work_dir import latest_checkpoint
from mmdet_stable.visualization import plot_matching_trace
from tests.tools.command_line import CONFIG, options, run
from tests.utils import ROOT


@pytest.fixture(scope='module')
def work_dirs(folder):
    """The work dir ``a`` of a training, and ``b``, the same as if it were another seed."""
    runs = folder / 'runs'
    arguments = ['--work-dir', runs / 'a', *options(folder, **{'randomness.seed': 0})]
    run(sys.executable, 'tools/train.py', CONFIG, *arguments)
    changed_copy(runs / 'a', runs / 'b', 'demo_digits', {'randomness.seed': 1})
    return runs


def changed_copy(work_dir, to, name, settings):
    """A copy of a work dir whose config has another name or other settings."""
    shutil.copytree(work_dir, to)
    cfg = Config.fromfile(to / 'demo_digits.py')
    (to / 'demo_digits.py').unlink()
    cfg.merge_from_dict(settings)
    cfg.dump(to / f'{name}.py')


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Runs a tool's main, and gives its picture's size, its table and where it drew."""
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')

    def call(name, *arguments):
        out = tmp_path / 'figures' / f'{name}.png'
        module = importlib.import_module(name)
        trust = [] if name == 'convergence' else ['--trust']  # which reads logs alone
        module.main([*map(str, arguments), *trust, '--out', str(out)])
        with open(out.with_suffix('.csv'), newline='') as file:
            return cv2.imread(str(out)).shape[:2], list(csv.DictReader(file))

    return call


def test_unstable_score(tool, work_dirs, capsys):
    size, rows = tool('unstable_score', work_dirs, '--num-images', 3)
    assert size == (600, 900)
    assert [(row['model'], row['layer']) for row in rows] == [('demo_digits (1)', '1'), ('demo_digits (2)', '1')]
    assert all(0 <= float(row['unstable_score']) <= 100 for row in rows)
    assert f'demo_digits (2): layer 1: {float(rows[1]["unstable_score"]):.1f} %' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['unstable_score', 'convergence', 'report'])
def test_results_go_into_the_first_work_dir(name, work_dirs, tmp_path, monkeypatch):
    """Not into the folder that a tool is called from. A folder that does not exist is not created."""
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    runs = shutil.copytree(work_dirs, tmp_path / 'runs')
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    few = [] if name == 'convergence' else ['--num-images', '1', '--trust']
    importlib.import_module(name).main([str(runs / 'b'), *few, str(runs / 'a')])  # options anywhere
    results = {'report.html'} if name == 'report' else {f'{name}.png', f'{name}.csv'}
    before = {path.name for path in (work_dirs / 'b').iterdir()}
    assert {path.name for path in (runs / 'b').iterdir()} == before | results
    with pytest.raises(FileNotFoundError, match='work dir does not exist: none'):
        importlib.import_module(name).main(['none'])
    assert not list((tmp_path / 'here').iterdir())


def test_results_beside_a_checkpoint(work_dirs, tmp_path, monkeypatch):
    """Of a model that is given by its files."""
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    run = shutil.copytree(work_dirs / 'a', tmp_path / 'a')
    files = [str(run / 'demo_digits.py'), str(run / 'epoch_1.pth')]
    importlib.import_module('matching_trace').main(['--model', *files])
    assert (run / 'matching_trace.png').exists() and (run / 'matching_trace.csv').exists()


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


def test_trace_of_many_objects(tmp_path):
    """Those whose query changes most are drawn, large enough to be told apart; all are counted."""
    query_inds = np.tile(np.arange(19), (3, 1))
    query_inds[1:, [4, 11, 17]] += 30
    query_inds[2, 11] += 30
    boxes = np.array([[10.0 * index, 20, 10.0 * index + 8, 60] for index in range(19)])
    trace = MatchingTrace(
        *((0, 1, 2), query_inds, np.tile(boxes, (3, 1, 1)), np.ones((3, 19)), np.ones((3, 19))),
        *(boxes, np.arange(19)),
    )
    texts = {}
    for number in (2, 3, 50):
        image, classes = np.zeros((120, 190, 3), np.uint8), [f'class {label}' for label in range(19)]
        plot_matching_trace(image, trace, classes, tmp_path / 'trace.svg', number)
        svg = (tmp_path / 'trace.svg').read_text()
        texts[number] = re.findall(r'<!-- (.*?) -->', svg)
        width, height = map(float, re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg).groups())
        assert width == pytest.approx(2 * 4.8 * 72) and height > 400
        assert f'ground truth: {min(number, 19)} of 19 objects' in texts[number]
        assert {"encoder's proposals", 'decoder layer 1: 3 of 19 changed'} <= {*texts[number]}
    assert [text for text in texts[3] if text.startswith('class')] == ['class 4', 'class 11', 'class 17']
    assert [text for text in texts[2] if text.isdigit()] == ['4', '11', '34', '41', '34', '71']
    with pytest.raises(ValueError, match='max_objects=0'):
        plot_matching_trace(image, trace, classes, tmp_path / 'trace.svg', 0)


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


class Outline(HTMLParser):
    """What a page is made of: its tags, all balanced, what they point to, and its tables."""

    VOID = ('meta', 'img', 'link', 'br')

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.cells = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ('src', 'href', 'srcset', 'action', 'data')]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ('td', 'th', 'h2'):
            self.cells.append(data)


def test_report(work_dirs, folder, tmp_path, monkeypatch, capsys):
    """One file that needs nothing else, of two configs, one of them with two seeds."""
    runs = shutil.copytree(work_dirs, tmp_path / 'runs')
    changed_copy(runs / 'a', runs / 'c', 'variant', {'model.test_cfg.nms.iou_threshold': 0.5})
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    page = tmp_path / 'pages' / 'report.html'
    arguments = ['--trust', '--num-images', '2', '--device', 'cpu', '--out', str(page)]
    importlib.import_module('report').main([str(runs), *arguments])
    assert f'report: {page}' in capsys.readouterr().out
    text = page.read_text()
    outline = Outline(text)
    assert len(outline.addresses) == 3 + 4 * 3  # charts, and of each of 4 images the ground truth and two models
    for index, address in enumerate(outline.addresses):
        kind, content = address.split(',')
        assert kind == f'data:image/{"png" if index < 3 else "jpeg"};base64'
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
        assert min(picture.shape[:2]) > 200
    assert not re.search(r'url\(|@import|<script|http-equiv', text)
    assert ('meta', {'name': 'viewport', 'content': 'width=device-width, initial-scale=1'}) in outline.tags
    for cell in ('AP of each class', 'objects', '9', 'layer 1', 'correlation', 'PyTorch', 'variant', '1 of 1'):
        assert cell in outline.cells, cell
    differing = outline.cells.index('model.test_cfg.nms.iou_threshold')
    assert outline.cells[differing : differing + 3] == ['model.test_cfg.nms.iou_threshold', '0.8', '0.5']
    annotations = json.loads((folder / 'scenes' / 'annotations' / 'instances_val.json').read_text())['annotations']
    for label in range(10):  # categories count from 1
        of_class = [annotation['image_id'] for annotation in annotations if annotation['category_id'] == label + 1]
        assert f'<tr><td>{label}</td><td>{len(of_class)}</td><td>{len(set(of_class))}</td>' in text
    assert re.search(r'<h2>Environment</h2>\s*<details><summary>Python 3[^<]*PyTorch', text)
    assert 'Trainings: demo_digits: 2, variant: 1. Looked into: demo_digits of seed 0, variant of seed 0.' in text
    for browser in filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))):
        check_in_browser(browser, page)


def check_in_browser(browser, page):
    """As wide as a phone and as a desk, the page fills the window, and is not blank."""
    for width in (390, 1400):
        shot = page.with_name(f'{width}.png')
        options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking']
        options += [f'--user-data-dir={page.parent}/browser', f'--window-size={width},900']
        subprocess.run([browser, *options, f'--screenshot={shot}', page.as_uri()], check=True, timeout=120)
        picture = cv2.imread(str(shot))
        assert picture.shape[1] == width and picture.std() > 10


def test_report_without_trainings(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    with pytest.raises(ValueError, match='no training that was validated and has a checkpoint'):
        importlib.import_module('report').main([str(tmp_path)])


@pytest.fixture(scope='module')
def foreign(work_dirs, tmp_path_factory):
    """A work dir of somebody else, whose config has mmengine import what lies beside it."""
    folder = tmp_path_factory.mktemp('others')
    (folder / 'payload.py').write_text('open(__file__ + ".ran", "w").close()')
    changed_copy(work_dirs / 'a', folder / 'foreign', 'demo_digits', {'model.type': 'payload.Model'})
    return folder / 'foreign'


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize('name', ['report', 'unstable_score'])
@pytest.mark.parametrize('answer', [None, 'n\n', '', 'y\n'])
def test_models_of_work_dirs_are_built_with_the_users_word(name, answer, foreign, tmp_path, monkeypatch, capsys):
    """Only then does what the config names run."""
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    monkeypatch.syspath_prepend(foreign.parent)
    monkeypatch.setattr('sys.stdin', io.StringIO() if answer is None else Terminal(answer))
    main = importlib.import_module(name).main
    arguments = [str(foreign), '--device', 'cpu', '--out', str(tmp_path / 'out')]
    if answer == 'y\n':
        with pytest.raises(Exception, match='payload'):
            main(arguments)
    else:
        with pytest.raises(PermissionError, match=f'{foreign}: nothing was built, .* add --trust'):
            main(arguments)
    assert ('[y/N]' in capsys.readouterr().err) == (answer is not None)
    ran = foreign.parent / 'payload.py.ran'
    assert ran.exists() == (answer == 'y\n')
    ran.unlink(missing_ok=True)
    sys.modules.pop('payload', None)


def test_curves_are_read_without_it(tool, foreign):
    tool('convergence', foreign)
    assert not (foreign.parent / 'payload.py.ran').exists()


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
    for name in (*tools, 'compare_detections', 'report'):
        with pytest.raises(SystemExit):
            tool(name, '--help')
        assert f'python tools/analysis/{name}.py work_dirs/' in capsys.readouterr().out


def test_checkpoint_of_a_moved_work_dir(work_dirs, tmp_path):
    """The pointer that mmengine wrote names the old place."""
    moved = (work_dirs / 'b').rename(tmp_path / 'moved')
    try:
        ((log,), _) = find_runs([moved])
        assert latest_checkpoint(log.work_dir) == str(moved / 'epoch_1.pth')
    finally:
        moved.rename(work_dirs / 'b')
