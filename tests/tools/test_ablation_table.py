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
    assert (psl['runs'], psl['ours'], psl['std'], psl['published']) == ('2 done', '50.2', '0.3', '49.8')
    assert (psl['difference'], psl['gain'], psl['published_gain']) == ('+0.4', '+1.2', '+0.6')
    assert psl['comparable'] == 'yes' and 'not comparable' not in output
    assert rows['9.1']['ours'] == psl['ours']  # the same config in another table
    assert rows['6.3']['runs'] == 'seed 60 at 3/12, after 3: 30.0' and rows['6.3']['ours'] == ''
    assert rows['6.6']['runs'] == 'not run'


def changed(folder, to, **settings):
    """A copy of a run with other settings."""
    shutil.copytree(folder, to)
    (config,) = to.glob('*.py')
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(settings)
    cfg.dump(config)
    return to


def test_runs_of_other_settings(published_settings, tmp_path):
    """No difference to the published value; a gain only over a baseline run on the same terms."""
    small = {'model.num_queries': 300}
    changed(published_settings / 'psl_60', tmp_path / 'psl', **small)
    changed(published_settings / 'dino_nms_60', tmp_path / 'dino_nms', **small)
    rows, output = table(tmp_path, '--rows', '6.2')
    assert rows['6.2']['comparable'] == 'no' and rows['6.2']['difference'] == '' and rows['6.2']['gain'] == '+1.0'
    assert 'not comparable' in output and 'among them model.num_queries' in output

    rows, _ = table(tmp_path / 'psl', published_settings / 'dino_nms_60', '--rows', '6.2')
    assert rows['6.2']['ours'] == '50.0' and rows['6.2']['gain'] == ''

    rows, output = table(published_settings, tmp_path, '--rows', '6.2')
    assert rows['6.2']['runs'] == '2 done' and f'{tmp_path / "psl"} left out: other settings than' in output
    for moved in ({'train_dataloader.dataset.ann_file': 'elsewhere/instances_train2017.json'}, {'load_from': None}):
        changed(published_settings / 'psl_60', tmp_path / str(len(moved)) / next(iter(moved)), **moved)
    rows, output = table(tmp_path / '1', '--rows', '6.2')
    assert rows['6.2']['comparable'] == 'yes' and 'seed 60 is already counted' in output


def test_formats(published_settings, tmp_path):
    file = tmp_path / 'new_folder' / 'table.md'
    markdown = run(*TABLE, published_settings, '--tables', 6, '--format', 'markdown', '--out', file)
    assert '| 6.2 | PSL ' in markdown and '50.2 ± 0.3' in markdown and file.read_text().strip() in markdown
    listing = run(*TABLE, '--list')
    assert 'configs/ablations/table9/f2_x025.py' in listing and '| 2.5 ' in listing


def test_unknown_rows(tmp_path):
    for arguments, message in [
        (('--list', '--rows', '6.99'), "--rows ['6.99']: known are 2.1, "),
        (('--list', '--tables', '6', '--rows', '7.1'), "--rows ['7.1']: none of them lies in --tables ['6']"),
        ((tmp_path / 'none',), f'work dir does not exist: {tmp_path / "none"}'),
    ]:
        output = run(*TABLE, *arguments, check=False)
        assert f'error: {message}' in output and 'Traceback' not in output
    assert 'give work dirs, --list or --run' in run(*TABLE, check=False)


def test_overlay_leaves_the_row_as_it_is():
    """The demo makes any config small without touching what the ablation is about."""
    for name in ('dino_nms', 'psl_pmc_u_shaped_fusion'):
        cfg = Config.fromfile(ROOT / 'configs' / 'ablations' / 'table6' / f'{name}.py')
        before = cfg.model.bbox_head.loss_cls, cfg.model.train_cfg, cfg.model.encoder.get('fusion')
        cfg.merge_from_dict(own_settings(CONFIG))
        assert (cfg.model.bbox_head.loss_cls, cfg.model.train_cfg, cfg.model.encoder.get('fusion')) == before
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
    assert rows['6.1']['ours'] == rows['7.1']['ours'] and rows['6.1']['comparable'] == 'no'

    # Stopped between the last checkpoint and its validation: only that is made up for.
    for scalars in second.glob('*/vis_data/scalars.json'):
        scalars.write_text('')
    before = (second / 'epoch_2.pth').read_bytes()
    rows, output = table(*command)
    assert 'psl, seed 60: finished\n' in output and rows['6.2']['runs'] == '1 done'
    assert (second / 'epoch_2.pth').read_bytes() == before

    # A run by hand counts, wherever it lies under the folder.
    by_hand = first.rename(root / 'by_hand')
    rows, output = table(*command)
    assert f'dino_nms, seed 60: finished before, in {by_hand}' in output and not (first / 'epoch_1.pth').exists()
    by_hand.rename(first)

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


def test_fine_tuning_finds_the_pre_training_of_the_same_sweep(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    import sweep

    name = 'stable_dino_swin_l_objects365_coco_18e'
    job = sweep.Job(ROOT / 'configs' / f'{name}.py', 61, tmp_path / name / 'seed_61')
    expected = tmp_path / 'stable_dino_swin_l_objects365_26e' / 'seed_61' / 'epoch_26.pth'
    assert sweep.job_config(job).load_from == str(expected)


def test_convergence_benchmark(folder):
    """On tiny data in COCO format, from the backbone of a checkpoint, by the same sweep."""
    scenes, root = folder / 'scenes', folder / 'convergence'
    data = [
        *('--train', scenes / 'annotations' / 'instances_train.json', scenes / 'train'),
        *('--val', scenes / 'annotations' / 'instances_val.json', scenes / 'val'),
    ]
    command = [sys.executable, 'tools/benchmarks/convergence.py', *data, '--rows', '6.1', '--seeds', '60']
    small = [option for option in options(folder)[1:] if 'dataset' not in option and 'ann_file' not in option]
    small = [option for option in small if 'max_epochs' not in option]
    output = run(*command, '--epochs', '1', '--size', '80', '64', '--work-root', root, '--cfg-options', *small)
    assert '| DINO + NMS | 1     | ' in output
    assert (root / 'convergence.csv').read_text().startswith('name,seed,epoch,AP\nDINO + NMS,60,1,')
    assert (root / 'convergence.png').stat().st_size > 10000
    cfg = Config.fromfile(root / 'dino_nms' / 'seed_60' / 'dino_nms.py')
    assert cfg.param_scheduler[1].end == cfg.train_cfg.max_epochs == 1
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (80, 64)


def test_a_row_in_training_is_left_to_who_trains_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    import sweep

    job = sweep.Job(CONFIG, 60, tmp_path)
    with sweep.locked(tmp_path) as lock:
        assert lock is not None and sweep.run(job, sweep.job_config(job)) == 'busy'
    assert not job.log.config_file.exists()
