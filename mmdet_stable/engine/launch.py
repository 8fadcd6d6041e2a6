"""What ``tools/train.py`` and ``tools/test.py`` share: arguments, config and the distributed set-up of this machine."""

import argparse
import ast
import errno
import functools
import gc
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Sequence, Tuple, Union

import torch.distributed.nn  # before there is a group, see ends_process_group
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from mmdet_stable.datasets.coco_checks import unreadable
from mmdet_stable.engine.config_checks import check_keys, check_model
from mmdet_stable.engine.lock import lock_holder, locked
from mmdet_stable.utils.arguments import SettingsAction
from mmdet_stable.utils.files import check_writable
from mmdet_stable.utils.launchers import is_first_process
from mmdet_stable.utils.work_dir import latest_checkpoint

TRAINING_LOCK = '.lock'  # in the work dir


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The arguments common to mmdet's tools."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go; default: work_dirs/<name of the config>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=SettingsAction,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=4 model.test_cfg.nms=None',
    )
    parser.add_argument('--strict', action='store_true', help='stop where a setting has no effect, as for a typo')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # Handed over by torch.distributed.launch; torchrun sets LOCAL_RANK itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """Read the config, apply the command line, and follow the hardware.

    Raises:
        ValueError: with ``--strict``, for settings that have no effect; otherwise these are warned of.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    variables = set(cfg)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    check_keys(cfg, args.cfg_options or (), variables, args.strict)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    if cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if get_device() == 'cpu' and args.launcher != 'none':
        distribute_on_cpu(cfg)
    return cfg


def resume(cfg: Config, checkpoint: str = 'auto') -> None:
    """Let the training go on from a checkpoint, or, with ``'auto'``, from the newest whole one of the work dir; where
    there is none, it starts as the config says.

    Raises:
        ValueError: while loading, if a checkpoint that was named is damaged.
    """
    found = latest_checkpoint(cfg.work_dir) if checkpoint == 'auto' else checkpoint
    cfg.resume = found is not None
    if cfg.resume:
        cfg.load_from = found


def check_training(cfg: Config) -> None:
    """Look for what a training needs before anything is built; its weights come after, by :func:`fetch_weights`.

    Raises:
        ValueError: for settings that do not fit together, annotation files that cannot be read, or mixed precision
            without an accelerator.
        OSError: for annotation files that are missing.
    """
    check_model(cfg)
    check_annotation_files(cfg, ['train_dataloader', 'val_dataloader', 'val_evaluator'])
    check_precision(cfg)


def check_work_dir(work_dir: Union[str, Path]) -> None:
    """Write into the work dir before anything is built.

    Raises:
        OSError: where that is impossible.
    """
    check_writable(Path(work_dir), 'work dir', '--work-dir')


def ends_process_group(tool: Callable[[], None]) -> Callable[[], None]:
    """Make a tool destroy torch's process group at its end, also after an exception.

    Left to the end of Python, gloo's threads are still there when Python is not: one that is late to let go of a tensor
    aborts the process, after a training that went well. They end with the last holder of the group. Holders are the
    runner, which refers to itself and needs to be collected, and functions of ``torch.distributed.nn``, as default
    argument, if that is imported when there is a group; this module imports it before.
    """

    @functools.wraps(tool)
    def ending() -> None:
        try:
            tool()
        except BaseException:
            # Held by the traceback, so that the error is shown without waiting for what other processes never answer.
            # NCCL would wait all the same; torch aborts its operations when Python ends.
            group = torch.distributed.group.WORLD
            if group is not None and 'nccl' not in torch.distributed.get_backend():
                torch.distributed.destroy_process_group()
            raise
        gc.collect()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    return ending


def check_precision(cfg: Config) -> None:
    """Look for what mixed precision needs before anything is built.

    Raises:
        ValueError: where torch sees no accelerator.
    """
    if 'AmpOptimWrapper' in str(cfg.optim_wrapper.get('type')) and get_device() in ('cpu', 'mps'):
        raise ValueError(
            'mixed precision (--amp, or optim_wrapper.type=AmpOptimWrapper) needs a GPU, and torch sees none on this '
            'machine. Train without it, in float32; if there is a GPU, python tools/doctor.py says why it is not seen'
        )


@contextmanager
def only_training(work_dir: Union[str, Path], launcher: str = 'none') -> Iterator[None]:
    """Keep the work dir to this training while it lasts; of several processes, the first one sees to it.

    Args:
        launcher: that started the processes, as of :func:`argument_parser`.

    Raises:
        BlockingIOError: if another training writes there.
    """
    if not is_first_process(launcher):
        yield
        return
    path = Path(work_dir) / TRAINING_LOCK
    with locked(path) as held:
        if not held:
            raise BlockingIOError(
                errno.EAGAIN,
                f'another training writes into work dir {work_dir}: {lock_holder(path)}. Wait for its end, stop '
                'it, or choose another --work-dir',
            )
        yield


def own_settings(path: Path) -> dict:
    """What a config file says itself, without the config it inherits from; fragments, from folders called ``_base_``,
    stay.

    With it, ``configs/demo_digits.py`` makes any config of the family as small as the demo.
    """
    path = Path(path).resolve()
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            bases = ast.literal_eval(node.value)
            bases = [bases] if isinstance(bases, str) else bases
            fragments = [str(path.parent / base) for base in bases if '_base_' in Path(base).parts]
            node.value = ast.parse(repr(fragments), mode='eval').body
    return Config.fromstring(ast.unparse(tree), '.py').to_dict()


def check_annotation_files(cfg: Config, keys: Sequence[str]) -> None:
    """Look for the annotation files of data loaders and evaluators before anything is built.

    Raises:
        FileNotFoundError: naming every config key whose file is missing.
        ValueError: for a file of JSON that is empty, cut off, or not JSON.
    """
    missing, files = [], set()
    for key in keys:
        for path, node in annotated(cfg.get(key), key):
            file = os.path.join(node.get('data_root') or '', node.ann_file)
            if not node.get('backend_args') and '://' not in file:
                files.update([file] if file.endswith('.json') else [])
                if not os.path.exists(file):
                    missing.append(f'{path}.ann_file: {file}')
    if missing:
        raise FileNotFoundError(
            'annotation files do not exist (set data_root and ann_file of the config, or --cfg-options):\n  '
            + '\n  '.join(missing)
        )
    problems = [str(found) for found in map(unreadable, sorted(files)) if found]
    if problems:
        raise ValueError('annotation files cannot be read:\n  ' + '\n  '.join(problems))


def annotated(node: object, path: str) -> Iterator[Tuple[str, ConfigDict]]:
    """The parts of a loader or evaluator that have an ``ann_file``, however deep they are wrapped, with their keys."""
    if isinstance(node, (list, tuple)):
        for index, part in enumerate(node):
            yield from annotated(part, f'{path}[{index}]')
    elif isinstance(node, ConfigDict):
        if node.get('ann_file'):
            yield path, node
        for key in ('dataset', 'datasets'):
            yield from annotated(node.get(key), f'{path}.{key}')


def distribute_on_cpu(cfg: Config) -> None:
    """Use gloo between CPU processes, where mmengine would insist on one CUDA device per process.

    Raises:
        ValueError: for launchers other than torch's.
    """
    if cfg.launcher != 'pytorch':
        raise ValueError(
            f'--launcher {cfg.launcher} needs one accelerator per process, and this machine has none; '
            'use tools/dist_train.sh'
        )
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}
    torch.distributed.init_process_group('gloo')
