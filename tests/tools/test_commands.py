"""The commands of README and docs: every one exists with its options, and those on trained models run."""

import io
import json
import re
import runpy
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_stable.__main__ import main
from mmdet_stable.commands import COMMANDS
from tests.evaluation.test_run_log import work_dir
from tests.tools.command_line import CONFIG
from tests.utils import ROOT, build

PAGES = (
    'README.md',
    'docs/install.md',
    'docs/training.md',
    'docs/own_data.md',
    'docs/mixing.md',
    'docs/figures.md',
    'docs/predict.md',
    'docs/faq.md',
    'docs/benchmarks.md',
    'docs/export.md',
    'docs/reliability.md',
    'docs/weights.md',
    'configs/README.md',
)
SHELL_SCRIPTS = {'tools/dist_train.sh': 'tools/train.py', 'tools/dist_test.sh': 'tools/test.py'}


def commands(page):
    """The calls of Python and of our scripts in blocks and in the text of a page, as lists of words."""
    text = (ROOT / page).read_text()
    blocks = ''.join(re.findall(r'```bash\n(.*?)```', text, flags=re.S)).replace('\\\n', ' ')
    text = re.sub(r'```.*?```', '', text, flags=re.S)
    found = re.findall(r'^(?:python|tools/\w+\.sh) .*', blocks, flags=re.M)
    found += re.findall(r'`((?:python|tools/\w+\.sh) [^`]+)`', text)
    return [shlex.split(line, comments=True) for line in found]


def call(words, monkeypatch):
    """Run a Python tool in this process, as ``python WORDS``."""
    script = ROOT / words[0]
    monkeypatch.setattr(sys, 'argv', [str(script), *words[1:]])
    monkeypatch.syspath_prepend(script.parent)
    runpy.run_path(str(script), run_name='__main__')


@pytest.fixture(scope='module')
def options_of():
    """What the --help of a tool, or of a command of the package, names, asked for once for each."""
    known = {}

    def ask(script, monkeypatch, capsys):
        if script not in known:
            with pytest.raises(SystemExit):
                main([script, '--help']) if script in COMMANDS else call([script, '--help'], monkeypatch)
            known[script] = set(re.findall(r'--[\w-]+', capsys.readouterr().out))
        return known[script]

    return ask


@pytest.mark.parametrize('page', PAGES)
def test_every_command_is_known(page, options_of, monkeypatch, capsys):
    found = commands(page)
    assert found or page == 'docs/mixing.md'
    for words in found:
        words = words[1:] if words[0] == 'python' else words
        if words[:2] == ['-m', 'mmdet_stable_runtime']:  # a folder that an export writes
            continue
        if words[0] == '-m':
            assert words[1] == 'mmdet_stable' and words[2] in COMMANDS, words
            words = words[2:]
        script = SHELL_SCRIPTS.get(words[0], words[0])
        assert script in COMMANDS or (ROOT / script).is_file(), words
        options = {word for word in words if word.startswith('--')}
        known = options_of(script, monkeypatch, capsys) if options else set()
        if script == 'tools/benchmarks/convergence.py':  # hands on what it does not know
            known = known | options_of('tools/analysis/ablation_table.py', monkeypatch, capsys)
        assert options <= known, (words, options - known)
        for path in words[1:]:
            assert not path.startswith('configs/') or (ROOT / path).is_file(), words


@pytest.fixture(scope='module')
def trained(folder):
    """What a sweep leaves of rows 6.1 and 6.6, of untrained models."""
    torch.manual_seed(0)
    root = folder / 'work_dirs' / 'figures'
    for name in ('dino_nms', 'stable_dino_r50_12e'):
        cfg = Config.fromfile(CONFIG)
        cfg.model.encoder.num_layers = cfg.model.decoder.num_layers = 2
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].dataset.data_root = f'{folder}/scenes'
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = f'{folder}/scenes/annotations/instances_val.json'
        run = work_dir(root / name / 'seed_60', {8: 0.5}, name)
        cfg.dump(run / f'{name}.py')
        meta = dict(dataset_meta=dict(classes=cfg.digit_classes))
        torch.save(dict(state_dict=build(cfg.model).state_dict(), meta=meta), run / 'epoch_8.pth')
        (run / 'last_checkpoint').write_text(str(run / 'epoch_8.pth'))
    return root


class Terminal(io.StringIO):
    """Standard input at which somebody sits."""

    def isatty(self):
        return True


def on_trained_models(page):
    """Those commands of a page that look at trainings, without training anything."""
    looking = [words[1:] for words in commands(page) if words[1:] and words[1].startswith('tools/analysis/')]
    return [words for words in looking if '--run' not in words]


@pytest.mark.parametrize('page,number', [('docs/figures.md', 9), ('README.md', 3), ('configs/README.md', 2)])
def test_commands_on_trained_models(page, number, trained, folder, options_of, tmp_path, monkeypatch, capsys):
    """In place of the pages' work dirs stand small ones, of four images; pictures go elsewhere; nobody is asked."""
    found = on_trained_models(page)
    assert len(found) == number
    monkeypatch.chdir(tmp_path)
    # Somebody at a terminal, who trusts the configs of these trainings.
    monkeypatch.setattr(sys, 'stdin', Terminal('y\n' * len(found)))
    dino, stable = trained / 'dino_nms' / 'seed_60', trained / 'stable_dino_r50_12e' / 'seed_60'
    places = {'$DINO': dino, '$STABLE': stable, 'work_dirs/figures': trained, 'work_dirs/small': trained}
    places.update({'work_dirs': trained, 'dino.py': dino / 'dino_nms.py', 'dino.pth': dino / 'epoch_8.pth'})
    for words in found:
        words = [str(places.get(word, word)) for word in words]
        words = [word.replace('docs/figures/', f'{tmp_path}/') for word in words]
        if '--trust' in options_of(words[0], monkeypatch, capsys) and '--trust' not in words:
            words.append('--trust')
        if '--index' in words:
            words[words.index('--index') + 1] = image_with_digits(folder)
        with pytest.raises(SystemExit) if 'ablation_table' in words[0] else nullcontext() as ended:
            call(words, monkeypatch)
        assert ended is None or not ended.value.code, capsys.readouterr()
        if '--out' in words:
            out = Path(words[words.index('--out') + 1])
            assert out.stat().st_size > 1000 and out.with_suffix('.csv').exists()
    results = {path.name for path in trained.rglob('*') if path.suffix in ('.html', '.png', '.csv')}
    expected = {'docs/figures.md': {'report.html', 'convergence.png', 'convergence.csv'}, 'configs/README.md': set()}
    assert results >= expected.get(page, {'report.html', 'unstable_score.png', 'unstable_score.csv'})


def image_with_digits(folder):
    """The number of a validation image that is not empty."""
    annotations = json.loads((folder / 'scenes' / 'annotations' / 'instances_val.json').read_text())['annotations']
    return str(annotations[0]['image_id'] - 1)
