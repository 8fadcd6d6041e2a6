"""What mmengine wrote into a work dir: settings, curves, and whether training is done."""

import json
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from mmengine.config import Config

METRICS = {
    'AP': 'coco/bbox_mAP',
    'AP50': 'coco/bbox_mAP_50',
    'AP75': 'coco/bbox_mAP_75',
    'APs': 'coco/bbox_mAP_s',
    'APm': 'coco/bbox_mAP_m',
    'APl': 'coco/bbox_mAP_l',
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
        return Config.fromfile(self.config_file)

    @property
    def seed(self) -> Optional[int]:
        return self.cfg.get('randomness', {}).get('seed')

    @property
    def max_epochs(self) -> Optional[int]:
        return (self.cfg.get('train_cfg') or {}).get('max_epochs')

    @cached_property
    def curve(self) -> Dict[int, Dict[str, float]]:
        """Metrics in points after each validated epoch, e.g. ``{12: {'AP': 50.4, ...}}``; later logs win."""
        curve = {}
        for file in sorted(self.work_dir.glob('*/vis_data/scalars.json')):
            for line in file.read_text().splitlines():
                metrics = _metrics(line)
                if metrics:
                    curve[json.loads(line)['step']] = metrics
        for file in sorted(self.work_dir.glob(f'{FINAL_TEST}/*/*.json')):
            curve[self.max_epochs] = _metrics(file.read_text())
        return dict(sorted(curve.items()))

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


def _metrics(line: str) -> Dict[str, float]:
    """COCO metrics in one line of a log, in points; a line cut off by a crash has none."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return {}
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
            run = RunLog(work_dir, configs[0]) if len(configs) == 1 else None
            if run is None:
                remarks.append(f'{work_dir} left out: one config is needed to recognise a run, it has {len(configs)}')
            elif not run.max_epochs:
                remarks.append(f'{work_dir} left out: its config counts no epochs (train_cfg.max_epochs)')
            else:
                runs.append(run)
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


# What tools/train.py and mmengine write into a saved config by themselves.
LAUNCH_SETTINGS = ('launcher', 'resume', 'load_from', 'work_dir', 'model_wrapper_cfg')


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
