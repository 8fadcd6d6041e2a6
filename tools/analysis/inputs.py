"""What the tools that look into trained models share: their arguments, and the models that these name."""

import argparse
import sys
from pathlib import Path
from typing import Callable, List, Optional, Tuple

import mmcv
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.device import get_device

from mmdet_stable.evaluation import RunLog, Subject, find_runs, load_subject
from mmdet_stable.utils.trust import add_trust, require_trust
from mmdet_stable.utils.user_errors import without_traceback
from mmdet_stable.utils.work_dir import latest_checkpoint


def argument_parser(description: str, picture: str) -> argparse.ArgumentParser:
    """Models, device and where the picture goes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='*', type=Path, help='folders with trainings, at any depth')
    parser.add_argument(
        '--model',
        nargs=2,
        action='append',
        default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a model by its files, besides those in work dirs; may be repeated',
    )
    parser.add_argument('--names', nargs='+', help='what to call the models; default: names of their configs')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='for all models')
    add_trust(parser)
    parser.add_argument('--device', default=get_device())
    add_out(parser, picture, 'the picture; its numbers go beside it as CSV')
    return parser


def add_out(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    parser.add_argument('--out', type=Path, help=f'{what}; default: {name} in the first work dir')
    parser.set_defaults(out_name=name)


def output_path(args: argparse.Namespace) -> Path:
    """``--out``, whose folder is created, or a file in the first work dir, or beside the first checkpoint."""
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        return args.out
    folders = args.work_dirs or [Path(checkpoint).parent for _, checkpoint in args.model]
    print(f'--out: {folders[0] / args.out_name}', file=sys.stderr)
    return folders[0] / args.out_name


def add_num_images(parser: argparse.ArgumentParser, default: int = 20) -> None:
    parser.add_argument('--num-images', type=int, default=default, help='the first ones of the test set')


def load_models(args: argparse.Namespace) -> List[Subject]:
    """The models, with the data of their configs' ``test_dataloader``.

    Raises:
        ValueError: for no models, or another number of names.
        FileNotFoundError: for a training without checkpoint.
        PermissionError: for work dirs without the user's word.
    """
    sources = model_sources(args.work_dirs, args.model)
    if not sources:
        raise ValueError('no models: give work dirs, or --model CONFIG CHECKPOINT')
    names = args.names or distinct([name for name, *_ in sources])
    if len(names) != len(sources):
        raise ValueError(f'--names {names}: {len(sources)} are needed, for {[name for name, *_ in sources]}')
    require_trust(args.work_dirs, args.trust)
    subjects = []
    for name, (_, cfg, checkpoint) in zip(names, sources):
        cfg.merge_from_dict(args.cfg_options or {})
        subjects.append(load_subject(name, cfg, checkpoint, args.device))
    args.out = output_path(args)
    return subjects


def model_sources(work_dirs: List[Path], files: List[Tuple[str, str]]) -> List[Tuple[str, Config, str]]:
    """Name, config and checkpoint of each model."""
    runs, remarks = find_runs(work_dirs)
    print('\n'.join(remarks), end='\n' if remarks else '', file=sys.stderr)
    sources = [(run.stem, run.cfg, checkpoint_of(run)) for run in runs]
    return sources + [(Path(config).stem, Config.fromfile(config), checkpoint) for config, checkpoint in files]


def checkpoint_of(run: RunLog) -> str:
    checkpoint = latest_checkpoint(run.work_dir)
    if checkpoint is None:
        raise FileNotFoundError(f'{run.work_dir}: no whole checkpoint is left of this training')
    return checkpoint


def distinct(names: List[str]) -> List[str]:
    """The same names, numbered where several are equal."""
    counts = [names[:index].count(name) + 1 for index, name in enumerate(names)]
    return [f'{name} ({count})' if names.count(name) > 1 else name for name, count in zip(names, counts)]


def single_model(args: argparse.Namespace) -> Subject:
    """The one model of tools that show one."""
    subjects = load_models(args)
    if len(subjects) > 1:
        raise ValueError(f'one model at a time, got {[subject.name for subject in subjects]}')
    return subjects[0]


def image_of(data_batch: dict) -> np.ndarray:
    """The original image of a batch of one, (H, W, 3), RGB."""
    return mmcv.imread(data_batch['data_samples'][0].img_path, channel_order='rgb')


def explained(main: Callable[[Optional[List[str]]], None]) -> None:
    """Call a tool; mistakes of the user end it with a message and without a traceback."""
    with without_traceback():
        main(None)
