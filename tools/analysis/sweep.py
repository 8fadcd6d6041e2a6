"""Trains many configs one after another, so that it can be stopped at any time and called again."""

import os
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple, Optional

from mmengine.config import Config

from mmdet_stable.engine.launch import TRAINING_LOCK, own_settings
from mmdet_stable.engine.lock import locked
from mmdet_stable.evaluation import RunLog, differing_settings
from mmdet_stable.evaluation.run_log import FINAL_TEST
from mmdet_stable.utils.children import call
from mmdet_stable.utils.work_dir import latest_checkpoint

SWEEP_LOCK = '.sweep.lock'  # in the work dir
TOOLS = Path(__file__).resolve().parents[1]


class Job(NamedTuple):
    """One config to be trained with one seed."""

    config: Path
    seed: int
    work_dir: Path

    @property
    def log(self) -> RunLog:
        return RunLog(self.work_dir, self.work_dir / self.config.name)


def job_config(job: Job, overlay: Optional[Path] = None, cfg_options: Optional[dict] = None) -> Config:
    """The config of a job: its file, then the overlay's own settings, then the options of the command line."""
    cfg = Config.fromfile(job.config)
    if overlay is not None:
        cfg.merge_from_dict(own_settings(overlay))
    cfg.merge_from_dict({**(cfg_options or {}), 'randomness.seed': job.seed, 'work_dir': str(job.work_dir)})
    # A checkpoint of another row, where training by hand would put it: here it lies in that row's folder of this sweep.
    load_from = Path(cfg.load_from or '')
    if load_from.parts[:1] == ('work_dirs',) and not load_from.exists():
        cfg.load_from = str(job.work_dir.parents[1] / load_from.parts[1] / job.work_dir.name / load_from.name)
    return cfg


def check_settings(job: Job, cfg: Config) -> None:
    """Raise ``ValueError`` if the work dir holds a run of other settings."""
    differing = differing_settings(job.log.cfg, cfg) if job.log.config_file.exists() else []
    if differing:
        raise ValueError(
            f'{job.work_dir} holds a run of other settings, which differ in {", ".join(differing[:8])}; '
            'choose another --work-root, or the settings it was begun with'
        )


def run(job: Job, cfg: Config, gpus: int = 0) -> str:
    """Train a job, go on where it was stopped, or leave it alone where it is done.

    Args:
        gpus: processes to train with; 0 for a single one without distribution.

    Returns:
        What happened: ``'finished'``, ``'finished before'``, ``'busy'`` (another process trains it) or ``'failed'``.

    Raises:
        ValueError: if the work dir holds a run of other settings.
    """
    check_settings(job, cfg)
    saved = job.log.config_file
    if saved.exists() and job.log.finished:
        return 'finished before'
    job.work_dir.mkdir(parents=True, exist_ok=True)
    with locked(job.work_dir / SWEEP_LOCK) as alone:
        with locked(job.work_dir / TRAINING_LOCK) as untouched:  # only a look: the training takes it itself
            if not (alone and untouched):
                return 'busy'
        scratch = job.work_dir / '.config.py'
        cfg.dump(scratch)
        scratch.replace(saved)
        command = [TOOLS / 'dist_train.sh', saved, gpus] if gpus else [sys.executable, TOOLS / 'train.py', saved]
        command += ['--work-dir', job.work_dir, '--resume']
        if not succeeds(command, job.work_dir):
            return 'failed'
        if not job.log.finished:  # stopped between the last checkpoint and its validation
            command = [sys.executable, TOOLS / 'test.py', saved, latest_checkpoint(job.work_dir)]
            if not succeeds([*command, '--work-dir', job.work_dir / FINAL_TEST], job.work_dir):
                return 'failed'
        return 'finished'


def succeeds(command: List[object], work_dir: Path) -> bool:
    """Run a command, its output in ``output.txt``; whether it succeeded."""
    # The shell scripts call "python", which must be this one.
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    with open(work_dir / 'output.txt', 'ab') as output:
        return call(command, stdout=output, stderr=subprocess.STDOUT, env=env) == 0
