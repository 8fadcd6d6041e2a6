"""What tools/train.py and tools/test.py print, and what only the log file has."""

import logging
import re
import sys

import pytest

from mmdet_stable.engine.console import ConsoleFilter, ConsoleFormatter
from tests.tools.command_line import CONFIG, options, run


@pytest.fixture(scope='module')
def trained(folder):
    """One epoch of four steps, of which each is logged, with a frozen stage; what was printed, and the log file."""
    settings = {'default_hooks.logger.interval': 1, 'model.backbone.frozen_stages': 1}
    arguments = ['--work-dir', folder / 'console', *options(folder, **settings)]
    output = run(sys.executable, 'tools/train.py', CONFIG, *arguments)
    (log,) = (folder / 'console').glob('*/*.log')
    return output, log


def test_a_person_sees_a_summary_and_progress(trained):
    output, log = trained
    before = output[: output.index('Epoch(train)')].splitlines()
    assert len(before) <= 25, output
    for line in (
        r'  model:    StableDINO, 3\.\d M weights, 0\.\d M of them frozen',
        '  train:    images 8, batches 4',
        '  val:      images 4, batches 1',
        '  schedule: epochs 1, steps 4, of which done 0',
        r'  rates:    0\.0004 \(AdamW\)',
        '  on:       1 x cpu, seed 60',
        f'  log:      {log}',
    ):
        assert any(re.fullmatch(line, text) for text in before), line
    steps = re.findall(r'Epoch\(train\) \[1\]\[\d/4\].*', output)
    assert len(steps) == 4 and all('  loss: ' in step and '  loss_cls: ' in step for step in steps)
    assert not re.search(r'd0\.|dn_loss|enc_loss|Exp name|paramwise|is skipped since|FileClient', output)
    assert 'Saving checkpoint at 1 epochs' in output and 'coco/bbox_mAP: ' in output


def test_the_log_file_has_all_of_it(trained):
    text = trained[1].read_text()
    for part in (
        'System environment:',
        'Config:\n',
        'Hooks will be executed',
        'paramwise_options -- ',
        'is skipped since its requires_grad=False',
        'Name of parameter - Initialization information',
        '  dn_loss_cls: ',
        'schedule: epochs 1',
    ):
        assert part in text, part


def test_testing(trained, folder):
    arguments = ['--work-dir', folder / 'tested', *options(folder)]
    output = run(sys.executable, 'tools/test.py', CONFIG, folder / 'console' / 'epoch_1.pth', *arguments)
    before = output[: output.index('Evaluating bbox')].splitlines()
    assert len(before) <= 20 and '  test:     images 4, batches 1' in before
    assert f'Load checkpoint from {folder / "console" / "epoch_1.pth"}' in output


def record(text, level=logging.INFO):
    return logging.LogRecord('mmengine', level, '', 0, text, (), None)


def test_of_the_set_up_only_what_matters_is_shown():
    console = ConsoleFilter()
    assert not console.filter(record('Config:\n...')) and console.filter(record('careful', logging.WARNING))
    for text in ('resumed epoch: 1, iter: 4', 'Load checkpoint from a.pth', 'LR is set based on batch size of 16'):
        assert console.filter(record(text))
    console.setting_up = False
    assert console.filter(record('Config:\n...')) and not console.filter(record('Exp name: demo_2026'))
    assert not console.filter(record('a.weight is skipped since its requires_grad=False', logging.WARNING))


def test_lines_of_every_kind_of_loss():
    kept = (
        'Epoch(train) [1][4/4]  lr: 1.0e-04  grad_norm: 12.4  loss: 13.7  loss_cls: 1.4  loss_bbox: inf  loss_iou: nan'
    )
    partial = ['d0.loss_cls', 'd12.loss_iou', 'enc_loss_bbox', 'dn_loss_cls', 'd0.dn_loss_cls', 'o2m_loss_cls']
    partial += ['d3.o2m_loss_bbox']
    line = ConsoleFormatter(color=False).format(record(kept + ''.join(f'  {name}: nan' for name in partial)))
    assert line.endswith(kept)
