"""Reading mmengine's work dirs, made by hand here; tests/tools reads real ones."""

import json

import pytest
from mmengine.config import Config

from mmdet_stable.evaluation import RunLog, differing_settings, find_runs, spread
from tests.utils import ROOT

SETTINGS = 'train_cfg = dict(max_epochs={})\nrandomness = dict(seed=7)\n'


def work_dir(folder, curve, name='psl', max_epochs=4, timestamp='20260101_000000', first_epoch=1):
    """A work dir with a config and the logged AP of some epochs."""
    scalars = folder / timestamp / 'vis_data' / 'scalars.json'
    scalars.parent.mkdir(parents=True)
    lines = [json.dumps({'lr': 0.1, 'loss': 3.0, 'step': 1, 'epoch': first_epoch})]
    lines += [
        json.dumps({'coco/bbox_mAP': ap, 'coco/bbox_mAP_s': -1.0, 'time': 1, 'step': epoch})
        for epoch, ap in curve.items()
    ]
    scalars.write_text('\n'.join(lines) + '\n')
    (folder / f'{name}.py').write_text(SETTINGS.format(max_epochs))
    return folder


def test_curve_in_points(tmp_path):
    ((log,), remarks) = find_runs([work_dir(tmp_path / 'any_name', {2: 0.244, 4: 0.4})])
    assert not remarks and (log.stem, log.seed, log.max_epochs) == ('psl', 7, 4)
    assert log.curve == {2: {'AP': 24.4}, 4: {'AP': 40.0}}  # -1 is COCO's word for no such boxes
    assert log.finished and log.final == {'AP': 40.0}


def test_unfinished_and_resumed(tmp_path):
    folder = work_dir(tmp_path, {1: 0.1, 2: 0.2})
    assert not RunLog(folder, folder / 'psl.py').finished
    work_dir(folder, {2: 0.25, 4: 0.4}, timestamp='20260102_000000', first_epoch=2)
    ((log,), _) = find_runs([tmp_path])
    assert log.finished and [metrics['AP'] for metrics in log.curve.values()] == [10.0, 25.0, 40.0]


def test_training_begun_anew_in_the_same_folder(tmp_path):
    """The epochs that an older training had reached do not count for the new one."""
    folder = work_dir(tmp_path, {2: 0.3, 4: 0.5})
    work_dir(folder, {1: 0.1}, timestamp='20260102_000000')
    ((log,), _) = find_runs([tmp_path])
    assert not log.finished and log.curve == {1: {'AP': 10.0}} and log.last_epoch == 1


def test_training_that_was_not_validated_yet(tmp_path):
    ((log,), _) = find_runs([work_dir(tmp_path, {}, first_epoch=3)])
    assert log.curve == {} and log.last_epoch == 3


def test_last_checkpoint_validated_later(tmp_path):
    """By tools/test.py, in a folder of its own; a file that was cut off, or is older than the training, is none."""
    folder = work_dir(tmp_path, {1: 0.1, 2: 0.2})
    for timestamp, text, final in [
        ('20250101_000000', '{"coco/bbox_mAP": 0.5}', None),
        ('20260102_000000', '{"coco/bbox_m', None),
        ('20260103_000000', '{"coco/bbox_mAP": 0.4}', {'AP': 40.0}),
    ]:
        file = folder / 'final_test' / timestamp / f'{timestamp}.json'
        file.parent.mkdir(parents=True)
        file.write_text(text)
        log = RunLog(folder, folder / 'psl.py')
        assert log.finished == (final is not None) and log.curve.get(4) == final


def test_line_cut_off_by_a_crash(tmp_path):
    folder = work_dir(tmp_path, {1: 0.1})
    (scalars,) = folder.glob('*/vis_data/scalars.json')
    with open(scalars, 'a') as file:
        file.write('3\n{"coco/bbox_mAP": 0.2, "st')
    assert list(RunLog(folder, folder / 'psl.py').curve) == [1]


def test_what_cannot_be_recognised_is_said(tmp_path):
    work_dir(tmp_path / 'good', {4: 0.4})
    work_dir(tmp_path / 'two_configs', {4: 0.4})
    (tmp_path / 'two_configs' / 'other.py').write_text(SETTINGS.format(4))
    work_dir(tmp_path / 'by_iterations', {4: 0.4})
    (tmp_path / 'by_iterations' / 'psl.py').write_text('train_cfg = dict(max_iters=4)')
    work_dir(tmp_path / 'broken', {4: 0.4})
    (tmp_path / 'broken' / 'psl.py').write_text('model = dict(')
    work_dir(tmp_path / 'foreign', {4: 0.4})
    with open(tmp_path / 'foreign' / 'psl.py', 'a') as file:
        file.write("custom_imports = dict(imports=['no_such_package'], allow_failed_imports=False)")
    program = work_dir(tmp_path / 'program', {4: 0.4}) / 'psl.py'
    program.write_text(f'open({str(tmp_path / "ran")!r}, "w")\n' + SETTINGS.format(4))
    (tmp_path / 'unrelated').mkdir()
    runs, remarks = find_runs([tmp_path, tmp_path / 'good'])
    assert [run.work_dir.name for run in runs] == ['foreign', 'good']  # once, though found twice
    text = '\n'.join(remarks)
    assert 'it has 2' in text and 'counts no epochs' in text and 'broken left out: psl.py cannot be read' in text
    assert f'{program}, line 1: not a plain value' in text and not (tmp_path / 'ran').exists()
    assert len(remarks) == 4
    with pytest.raises(FileNotFoundError, match='work dir does not exist: '):
        find_runs([tmp_path / 'none'])


def test_differing_settings():
    a = Config.fromfile(ROOT / 'configs' / 'stable_dino_r50_12e.py')
    b = Config.fromfile(ROOT / 'configs' / 'stable_dino_r50_12e.py')
    b.merge_from_dict({'model.neck.num_outs': 5, 'resume': True, 'work_dir': 'x'})
    b.optim_wrapper.optimizer.fused = False
    b.model.bbox_head.loss_cls['_delete_'] = True
    b.model.bbox_head.pop('target_rescale')
    assert differing_settings(a, b) == ['model.bbox_head.target_rescale', 'model.neck.num_outs']
    assert differing_settings(a, b, ['neck', 'resume', 'work_dir', 'fused', '_delete_']) == [
        'model.bbox_head.target_rescale'
    ]


def test_spread():
    assert [spread(values) for values in ([], [50.04], [50.0, 51.0])] == ['', '50.0', '50.5 ± 0.7']
