"""What mmengine wrote into a work dir: settings, curves, and whether training is done."""

import json
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from mmengine.config import Config

from mmdet_stable.utils.saved_config import read_saved_config

METRICS = {
    'AP': 'coco/bbox_mAP',
    'AP50': 'coco/bbox_mAP_50',
    'AP75': 'coco/bbox_mAP_75',
    'APs': 'coco/bbox_mAP_s',
    'APm': 'coco/bbox_mAP_m',
    'APl': 'coco/bbox_mAP_l',
    'mask AP': 'coco/segm_mAP',
}


@dataclass(frozen=True)
class RunLog:
    """One training, possibly interrupted and resumed several times.

    Attributes:
        work_dir: its folder.
        config_file: the config that mmengine saved there; its name tells which config was trained.
    """

    work_dir: Path
    config_file: Path

    @property
    def stem(self) -> str:
        return self.config_file.stem

    @cached_property
    def cfg(self) -> Config:
        """Its settings, read without running the file."""
        return read_saved_config(self.config_file)

    @property
    def seed(self) -> Optional[int]:
        return self.cfg.get('randomness', {}).get('seed')

    @property
    def max_epochs(self) -> int:
        """How long it is to train; 0 where its config counts no epochs."""
        return (self.cfg.get('train_cfg') or {}).get('max_epochs') or 0

    @property
    def curve(self) -> Dict[int, Dict[str, float]]:
        """Metrics in points after each validated epoch, e.g. ``{12: {'AP': 50.4, ...}}``."""
        return self._history[0]

    @property
    def last_epoch(self) -> int:
        """The epoch that training has come to; 0 before the first log."""
        return self._history[1]

    @cached_property
    def _history(self) -> Tuple[Dict[int, Dict[str, float]], int]:
        curve: Dict[int, Dict[str, float]] = {}
        last_epoch = 0
        logs = sorted(self.work_dir.glob('*/vis_data/scalars.json'))
        for file in logs:
            lines = list(map(_parsed, file.read_text().splitlines()))
            trained = [line['epoch'] for line in lines if 'epoch' in line]
            # Training that began again, not where the log before it ended, makes the epochs from there on void.
            curve = {epoch: metrics for epoch, metrics in curve.items() if not trained or epoch < trained[0]}
            curve.update({line['step']: _metrics(line) for line in lines if _metrics(line)})
            last_epoch = max([*curve, *trained[-1:]], default=last_epoch)
        for file in sorted(self.work_dir.glob(f'{FINAL_TEST}/*/*.json')):
            metrics = _metrics(_parsed(file.read_text()))
            if metrics and file.stem > logs[-1].parents[1].name:  # both are named by the time they were begun
                curve[self.max_epochs] = metrics
        return dict(sorted(curve.items())), last_epoch

    @property
    def finished(self) -> bool:
        """Whether the last epoch was validated."""
        return self.max_epochs in self.curve

    @property
    def final(self) -> Dict[str, float]:
        """Metrics of the last epoch, if finished."""
        return self.curve[self.max_epochs]


# Where the last checkpoint is evaluated again, when training was interrupted between it and its validation.
FINAL_TEST = 'final_test'


def _parsed(line: str) -> dict:
    """A line of a log; empty for one that a crash cut off."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return values if isinstance(values, dict) else {}


def _metrics(values: dict) -> Dict[str, float]:
    """The COCO metrics of a line, in points."""
    return {name: round(100 * values[key], 1) for name, key in METRICS.items() if values.get(key, -1) >= 0}


def find_runs(folders: Iterable[Path]) -> Tuple[List[RunLog], List[str]]:
    """All trainings in the given folders and below.

    Returns:
        The runs, and a remark on each folder that had to be left out.

    Raises:
        FileNotFoundError: if a folder does not exist.
    """
    runs, remarks, seen = [], [], set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f'work dir does not exist: {folder}')
        for scalars in sorted(folder.resolve().glob('**/vis_data/scalars.json')):
            work_dir = scalars.parents[2]
            if work_dir in seen:
                continue
            seen.add(work_dir)
            configs = sorted(work_dir.glob('*.py'))
            if len(configs) != 1:
                remarks.append(f'{work_dir} left out: one config is needed to recognise a run, it has {len(configs)}')
                continue
            run = RunLog(work_dir, configs[0])
            try:
                counts_epochs = bool(run.max_epochs)
            except (ValueError, AttributeError) as error:  # the latter where there is no dict in the place of one
                remarks.append(f'{work_dir} left out: {configs[0].name} cannot be read: {error!r}')
                continue
            if counts_epochs:
                runs.append(run)
            else:
                remarks.append(f'{work_dir} left out: its config counts no epochs (train_cfg.max_epochs)')
    return runs, remarks


def flatten(node: object, prefix: str = '') -> Iterator[Tuple[str, object]]:
    """The leaves of a config with dotted keys, e.g. ``('model.neck.num_outs', 4)``."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    empty = True
    for key, value in items:
        empty = False
        yield from flatten(value, f'{prefix}{key}.')
    if empty:
        yield prefix[:-1], node


# What tools/train.py and mmengine write into a saved config, or leave there, and what changes nothing in training.
LAUNCH_SETTINGS = (
    *('launcher', 'resume', 'load_from', 'work_dir', 'model_wrapper_cfg'),
    *('num_workers', 'persistent_workers', 'backend_args', 'fused', '_delete_'),
)


def differing_settings(a: Config, b: Config, ignore: Sequence[str] = LAUNCH_SETTINGS) -> List[str]:
    """Dotted keys in which two configs differ, sorted; ``ignore`` holds keys, or parts of dotted keys, to leave out."""
    a, b = dict(flatten(a.to_dict())), dict(flatten(b.to_dict()))
    keys = (key for key in a.keys() | b.keys() if a.get(key, MISSING) != b.get(key, MISSING))
    return sorted(key for key in keys if not any(f'.{part}.' in f'.{key}.' for part in ignore))


MISSING = object()


def spread(values: Sequence[float]) -> str:
    """Mean, with the sample standard deviation where there are several values; empty for none."""
    if len(values) > 1:
        return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
    return f'{values[0]:.1f}' if values else ''
