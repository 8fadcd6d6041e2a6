"""Writing checkpoints, and choosing the one to go on from."""

import os
import resource
import shutil
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper

from mmdet_stable.engine.checkpoints import AtomicBackend
from mmdet_stable.engine.hooks import AtomicCheckpointHook, OptimizerKernelsHook
from mmdet_stable.engine.launch import check_work_dir, resume
from mmdet_stable.utils.files import write_whole
from mmdet_stable.utils.work_dir import best_checkpoint, checkpoint_problem, latest_checkpoint


def save(path, age=0):
    """A whole checkpoint, saved ``age`` seconds ago."""
    torch.save(dict(state_dict=dict(weight=torch.arange(5000.0))), path)
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


class TestBackend:
    def test_replaces_the_whole_file(self, tmp_path):
        AtomicBackend().put(b'old', tmp_path / 'new' / 'file')
        AtomicBackend().put(b'new', tmp_path / 'new' / 'file')
        assert (tmp_path / 'new' / 'file').read_bytes() == b'new'
        assert [path.name for path in (tmp_path / 'new').iterdir()] == ['file']

    def test_a_disk_that_fills_up(self, tmp_path):
        """A process that may write 1,000 bytes into a file: what was there stays, and nothing else does."""
        (tmp_path / 'file').write_bytes(b'old')
        code = (
            'from mmdet_stable.engine.checkpoints import AtomicBackend\n'
            'import resource\n'
            'resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n'
            f'AtomicBackend().put(bytes(3 * 2**20), {str(tmp_path / "file")!r})'
        )
        result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert 'cannot write 3.0 MB to ' in result.stderr and 'Earlier files are intact' in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ['file'] and (tmp_path / 'file').read_bytes() == b'old'
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000

    def test_each_writer_says_what_to_do(self, tmp_path):
        (tmp_path / 'file').touch()
        with pytest.raises(OSError, match='intact; make room or choose another --work-dir, and go on with --resume'):
            AtomicBackend().put(b'new', tmp_path / 'file' / 'x')
        with pytest.raises(OSError, match='intact; make room, or choose another place to write to'):
            write_whole(tmp_path / 'file' / 'x', 'new')


class TestChoice:
    def test_newest_whole_one(self, tmp_path):
        assert latest_checkpoint(tmp_path) is None
        new = save(tmp_path / 'epoch_10.pth')
        save(tmp_path / 'epoch_2.pth', age=10)
        assert latest_checkpoint(tmp_path) == str(new)

    def test_the_number_counts_before_the_time(self, tmp_path):
        """Copies and synchronised folders have times of their own."""
        new, old = save(tmp_path / 'epoch_12.pth', age=10), save(tmp_path / 'epoch_9.pth')
        assert latest_checkpoint(tmp_path) == str(new)
        (tmp_path / 'last_checkpoint').write_text(str(old))  # begun anew in the folder of a longer training
        assert latest_checkpoint(tmp_path) == str(old)

    def test_a_copied_work_dir_goes_on_from_its_own_checkpoint(self, tmp_path):
        (tmp_path / 'first').mkdir()
        save(tmp_path / 'first' / 'epoch_2.pth')
        (tmp_path / 'first' / 'last_checkpoint').write_text(str(tmp_path / 'first' / 'epoch_2.pth'))
        copy = shutil.copytree(tmp_path / 'first', tmp_path / 'copy')
        assert latest_checkpoint(copy) == str(copy / 'epoch_2.pth')
        (copy / 'epoch_2.pth').rename(copy / 'epoch_1.pth')
        assert latest_checkpoint(copy) == str(copy / 'epoch_1.pth')
        (copy / 'epoch_1.pth').unlink()  # as with an out_dir elsewhere
        assert latest_checkpoint(copy) == str(tmp_path / 'first' / 'epoch_2.pth')

    @pytest.mark.parametrize('damage', [cut, flip_a_byte, lambda path: path.write_bytes(b'')])
    def test_damaged_ones_are_named_and_passed_over(self, tmp_path, damage, caplog):
        old, new = save(tmp_path / 'epoch_1.pth', age=10), save(tmp_path / 'epoch_2.pth')
        (tmp_path / 'last_checkpoint').write_text(str(new))
        logger = MMLogger.get_current_instance()
        logger.addHandler(caplog.handler)
        damage(new)
        assert latest_checkpoint(tmp_path) == str(old)
        logger.removeHandler(caplog.handler)
        assert f'{new} is passed over: it is' in caplog.text

    def test_a_half_written_pointer_does_not_matter(self, tmp_path):
        path = save(tmp_path / 'iter_5.pth')
        for text in ('', 'iter', str(tmp_path / 'none.pth')):
            (tmp_path / 'last_checkpoint').write_text(text)
            assert latest_checkpoint(tmp_path) == str(path)

    def test_other_names_by_the_pointer(self, tmp_path):
        (tmp_path / 'last_checkpoint').write_text(str(save(tmp_path / 'mine.pth')))
        assert latest_checkpoint(tmp_path) == str(tmp_path / 'mine.pth')

    def test_scratch_files_are_no_checkpoints(self, tmp_path):
        save(tmp_path / '.epoch_3.pth.77.part')
        assert latest_checkpoint(tmp_path) is None

    def test_the_best_is_the_newest_whole_one_of_that_name(self, tmp_path):
        save(tmp_path / 'epoch_9.pth')
        assert best_checkpoint(tmp_path) is None
        old = save(tmp_path / 'best_coco_bbox_mAP_epoch_9.pth', age=10)
        new = save(tmp_path / 'best_coco_bbox_mAP_epoch_12.pth')
        assert best_checkpoint(tmp_path) == str(new)
        cut(new)
        assert best_checkpoint(tmp_path) == str(old)

    def test_zip_files_of_others(self, tmp_path):
        with zipfile.ZipFile(tmp_path / 'epoch_1.pth', 'w') as archive:
            archive.writestr('readme', 'text')
        assert checkpoint_problem(tmp_path / 'epoch_1.pth') == 'it holds no data of torch.save'

    def test_resuming(self, tmp_path):
        """Where there is nothing to go on from, the config's own start counts."""
        cfg = SimpleNamespace(work_dir=str(tmp_path), load_from='pretrained.pth', resume=None)
        resume(cfg)
        assert (cfg.resume, cfg.load_from) == (False, 'pretrained.pth')
        path = save(tmp_path / 'epoch_1.pth')
        resume(cfg)
        assert (cfg.resume, cfg.load_from) == (True, str(path))
        resume(cfg, 'mine.pth')
        assert (cfg.resume, cfg.load_from) == (True, 'mine.pth')


def test_work_dir_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match=r'work dir .*/file/runs cannot be written to; choose another by --work-dir'):
        check_work_dir(tmp_path / 'file' / 'runs')
    check_work_dir(tmp_path / 'runs')
    assert not list((tmp_path / 'runs').iterdir())


class TestHook:
    @pytest.fixture
    def runner(self, tmp_path):
        def save_checkpoint(out_dir, filename, **kwargs):
            """What mmengine's does with the file; fails where ``full`` says so."""
            seen.append(sorted(path.name for path in tmp_path.glob('*.pth')))
            if runner.full:
                raise OSError('No space left on device')
            AtomicBackend().put(b'weights', os.path.join(out_dir, filename))

        seen = []
        runner = SimpleNamespace(
            work_dir=str(tmp_path),
            model=torch.nn.Linear(3, 3),
            logger=MMLogger.get_instance('hook'),
            message_hub=MessageHub.get_instance('hook' + tmp_path.name),
            save_checkpoint=save_checkpoint,
            full=False,
            seen=seen,
            epoch=0,
            iter=0,
        )
        return runner

    def test_the_old_one_goes_after_the_new_one_is_there(self, runner, tmp_path):
        (tmp_path / '.epoch_1.pth.77.part').touch()  # of a process that was killed
        hook = AtomicCheckpointHook(max_keep_ckpts=1)
        hook.before_train(runner)
        assert not list(tmp_path.iterdir())
        for runner.epoch in range(3):
            hook._save_checkpoint(runner)
        assert runner.seen == [[], ['epoch_1.pth'], ['epoch_2.pth']]
        assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_3.pth']
        assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')
        runner.full, runner.epoch = True, 3
        with pytest.raises(OSError, match='No space'):
            hook._save_checkpoint(runner)
        assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_3.pth']
        assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')

    def test_keeps_as_many_as_mmengine(self, runner, tmp_path):
        for keep, left in ((-1, 5), (2, 2)):
            for path in tmp_path.iterdir():
                path.unlink()
            hook = AtomicCheckpointHook(max_keep_ckpts=keep)
            hook.before_train(runner)
            for runner.epoch in range(5):
                hook._save_checkpoint(runner)
            assert len(list(tmp_path.glob('*.pth'))) == left

    def test_what_a_kill_left_half_written_is_cleared_away(self, runner, tmp_path):
        for name in ('.epoch_3.pth.77.part', '.last_checkpoint.77.part', '.writable.78.part', 'mine.part'):
            (tmp_path / name).touch()
        AtomicCheckpointHook().before_train(runner)
        assert [path.name for path in tmp_path.iterdir()] == ['mine.part']

    @pytest.mark.parametrize(
        'name,value',
        [('out_dir', 's3://bucket/runs'), ('backend_args', dict(backend='petrel')), ('file_client_args', dict(a=1))],
    )
    def test_remote_storage_is_refused(self, name, value):
        with pytest.raises(ValueError, match=r"writes into local folders only; .*type='CheckpointHook'") as error:
            AtomicCheckpointHook(**{name: value})
        assert f'({name}={value!r})' in str(error.value)

    def test_a_disk_without_room_is_refused_before_training(self, runner, monkeypatch):
        usage = SimpleNamespace(free=10)
        monkeypatch.setattr('shutil.disk_usage', lambda _: usage)
        with pytest.raises(OSError, match='has 0 MB left, but a checkpoint needs about'):
            AtomicCheckpointHook().before_train(runner)


@pytest.mark.parametrize('before', [None, True])
@pytest.mark.parametrize('now', [None, True])
def test_resuming_keeps_the_kernels_of_the_config(before, now):
    """A checkpoint of an optimiser that was fused, or not, goes on with one that is not, or is; also with a scaler."""

    def stepped(fused, checkpoint=None):
        weight = torch.nn.Parameter(torch.ones(3))
        wrapper = OptimWrapper(torch.optim.AdamW([weight], lr=0.1, fused=fused))
        if checkpoint is not None:
            OptimizerKernelsHook().after_load_checkpoint(SimpleNamespace(optim_wrapper=wrapper), checkpoint)
            wrapper.load_state_dict(checkpoint['optimizer'])
        scaler = torch.amp.GradScaler('cpu')
        scaler.scale(weight.square().sum()).backward()
        scaler.step(wrapper.optimizer)
        return wrapper.optimizer

    optimizer = stepped(now, dict(optimizer=stepped(before).state_dict()))
    assert optimizer.param_groups[0]['fused'] == now
    (state,) = optimizer.state.values()
    assert state['step'] == 2


def test_loading_to_test_needs_no_optimiser():
    OptimizerKernelsHook().after_load_checkpoint(SimpleNamespace(optim_wrapper=None), dict(state_dict={}))
