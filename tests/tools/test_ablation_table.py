"""The ablation table: reading work dirs, and training what is missing across interruptions."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from mmengine.config import Config

from mmdet_stable.engine.launch import own_settings
from tests.evaluation.test_run_log import work_dir
from tests.tools.command_line import CONFIG, ENVIRONMENT, options, run
from tests.utils import ROOT

TABLE = [sys.executable, 'tools/analysis/ablation_table.py']


def table(*arguments, **kwargs):
    """The rows of the table as dicts, and all that was printed."""
    output = run(*TABLE, *arguments, '--format', 'csv', **kwargs)
    lines = [line for line in output.splitlines() if line.startswith('row,') or re.match(r'\d+\.\d+,', line)]
    return {row['row']: row for row in csv.DictReader(lines)}, output


@pytest.fixture(scope='module')
def published_settings(tmp_path_factory):
    """Work dirs that look like finished trainings of the configs as they are: two seeds of PSL, one of the baseline."""
    root = tmp_path_factory.mktemp('published')
    for name, seed, curve in [
        ('psl', 60, {1: 0.2, 12: 0.5}),
        ('psl', 61, {12: 0.504}),
        ('dino_nms', 60, {12: 0.49}),
        ('psl_pmc', 60, {3: 0.3}),
    ]:
        folder = work_dir(root / f'{name}_{seed}', curve, name)
        cfg = Config.fromfile(ROOT / 'configs' / 'ablations' / 'table6' / f'{name}.py')
        cfg.merge_from_dict({'randomness.seed': seed, 'train_dataloader.dataset.data_root': '/elsewhere'})
        cfg.dump(folder / f'{name}.py')
    return root


def test_ours_beside_the_published(published_settings):
    rows, output = table(published_settings, '--tables', 6, 9)
    psl = rows['6.2']
    assert (psl['runs'], psl['AP, ours'], psl['published']) == ('2 done', '50.2 ± 0.3', '49.8')
    assert (psl['difference'], psl['gain, ours'], psl['gain, published']) == ('+0.4', '+1.2', '+0.6')
    assert rows['9.1']['AP, ours'] == psl['AP, ours']  # the same config in another table
    assert rows['6.3']['runs'] == 'seed 60 at 3/12: 30.0' and rows['6.3']['AP, ours'] == ''
    assert rows['6.6']['runs'] == 'not run' and '*' not in output


def test_other_settings_are_marked(published_settings, tmp_path):
    folder = shutil.copytree(published_settings / 'psl_60', tmp_path / 'psl_60')
    cfg = Config.fromfile(folder / 'psl.py')
    cfg.model.num_queries = 300
    cfg.dump(folder / 'psl.py')
    rows, output = table(tmp_path, '--rows', '6.2')
    assert rows['6.2']['AP, ours'] == '50.0*' and rows['6.2']['difference'] == ''
    assert 'not comparable' in output and 'model.num_queries' in output
    output = run(*TABLE, tmp_path, published_settings, '--rows', '6.2', check=False)
    assert 'runs of psl with different settings: model.num_queries' in output


def test_formats(published_settings, tmp_path):
    markdown = run(*TABLE, published_settings, '--tables', 6, '--format', 'markdown', '--out', tmp_path / 'table.md')
    assert '| 6.2 | PSL ' in markdown and (tmp_path / 'table.md').read_text() in markdown
    listing = run(*TABLE, '--list')
    assert 'configs/ablations/table9/f2_x025.py' in listing and '| 2.5 ' in listing


def test_unknown_rows(tmp_path):
    assert "--rows ['6.99']: known are 2.1, " in run(*TABLE, '--list', '--rows', '6.99', check=False)
    assert 'give work dirs, --list or --run' in run(*TABLE, check=False)


def test_overlay_leaves_the_row_as_it_is():
    """The demo makes any config small without touching what the ablation is about."""
    for name in ('dino_nms', 'psl_pmc_u_shaped_fusion'):
        cfg = Config.fromfile(ROOT / 'configs' / 'ablations' / 'table6' / f'{name}.py')
        before = cfg.model.bbox_head.loss_cls, cfg.model.train_cfg, cfg.model.encoder.fusion
        cfg.merge_from_dict(own_settings(CONFIG))
        assert (cfg.model.bbox_head.loss_cls, cfg.model.train_cfg, cfg.model.encoder.fusion) == before
        assert cfg.model.num_queries == 40 and cfg.train_cfg.max_epochs == 8


def test_run_goes_on_where_it_was_stopped(folder):
    """Killed in the first epoch of the second row; the first row stays untouched, the second is finished."""
    root = folder / 'sweep'
    settings = options(folder, **{'train_cfg.max_epochs': 2})
    command = ['--run', '--rows', '6.1', '6.2', '7.1', '--overlay', CONFIG, '--work-root', root, *settings]
    process = subprocess.Popen(
        list(map(str, TABLE + command)), cwd=ROOT, env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    first, second = root / 'dino_nms' / 'seed_60', root / 'psl' / 'seed_60'
    deadline = time.time() + 300
    while not (second / 'epoch_1.pth').exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in first.rglob('*')}

    rows, output = table(*command)
    assert '[1/2] dino_nms, seed 60: finished before' in output and '[2/2] psl, seed 60: finished\n' in output
    assert {path: path.stat().st_mtime_ns for path in first.rglob('*') if path in before} == before
    assert [rows[row]['runs'] for row in ('6.1', '6.2', '7.1')] == ['1 done'] * 3
    assert rows['6.1']['AP, ours'] == rows['7.1']['AP, ours'].strip('*') + '*'

    # Stopped between the last checkpoint and its validation: only that is made up for.
    for scalars in second.glob('*/vis_data/scalars.json'):
        scalars.write_text('')
    before = (second / 'epoch_2.pth').read_bytes()
    rows, output = table(*command)
    assert 'psl, seed 60: finished\n' in output and rows['6.2']['runs'] == '1 done'
    assert (second / 'epoch_2.pth').read_bytes() == before

    # Other settings in the same place would mix two experiments.
    other = [option if 'max_epochs' not in option else 'train_cfg.max_epochs=3' for option in map(str, command)]
    output = run(*TABLE, *other, check=False)
    assert f'{first} holds a run of other settings, which differ in train_cfg.max_epochs' in output

    # A row that fails is named.
    broken = options(folder, **{'model.bbox_head.loss_cls.f1': 's^9'})
    command = ['--run', '--rows', '6.2', '--overlay', CONFIG, '--work-root', folder / 'broken', *broken]
    output = run(*TABLE, *command, check=False)
    assert 'failed: psl, seed 60; see the end of ' in output
    assert "unknown f1='s^9'" in (folder / 'broken' / 'psl' / 'seed_60' / 'output.txt').read_text()


def test_a_row_in_training_is_left_to_who_trains_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    import sweep

    job = sweep.Job(CONFIG, 60, tmp_path)
    with sweep.locked(tmp_path) as lock:
        assert lock is not None and sweep.run(job, sweep.job_config(job)) == 'busy'
    assert not job.log.config_file.exists()
