"""What `python -m mmdet_stable train` reaches on data of one's own, beside mmdet's DINO with the same backbone, layers,
queries, data, batch, learning rate and number of epochs. Examples:

python tools/benchmarks/own_data.py data/bccd --epochs 4 --seeds 60 61 62
python tools/benchmarks/own_data.py data/bccd --epochs 12 --average ema   # and the same weights before averaging

Prints AP, calibration and CPU time of the last epoch: means with the sample standard deviation over seeds. Trainings
that are finished are not repeated, so that it can be stopped and called again.
"""

import argparse
import json
import resource
import sys
from pathlib import Path
from pprint import pformat
from typing import Any, Dict, List

import torch
from mmengine.config import Config
from mmengine.hub import get_config
from terminaltables import GithubFlavoredMarkdownTable

import mmdet_stable.engine.safe_globals  # noqa: F401  lets torch.load read mmengine's checkpoints
from mmdet_stable.evaluation import spread
from mmdet_stable.training.config_file import own_path
from mmdet_stable.utils.children import call

ROOT = Path(__file__).resolve().parents[2]
MMDET_DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
COLUMNS = {
    'AP': 'AP',
    'AP50': 'AP50',
    'AP75': 'AP75',
    'oLRP': 'oLRP',
    'LaECE0': 'LaECE0',
    'correlation': 'rank correlation of score and IoU, %',
    'minutes': 'CPU minutes',
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', help='what `train` takes: a folder, or a file of annotations')
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--seeds', type=int, nargs='+', default=[60, 61, 62])
    parser.add_argument('--average', choices=['ema', 'swa'], help='average the weights of ours')
    parser.add_argument('--only', choices=['ours', 'mmdet'], help='one of the two')
    parser.add_argument('--work-root', type=Path, default=Path('work_dirs/own_data'))
    args = parser.parse_args()
    rows: Dict[str, List[Dict[str, Any]]] = {}
    for seed in args.seeds:
        base = args.work_root.resolve() / f'ours_{args.average or "plain"}_{args.epochs}_seed_{seed}'
        if args.only != 'mmdet':
            minutes = train_ours(args, seed, base)
            name = f'Stable-DINO, {args.average}' if args.average else 'Stable-DINO'
            rows.setdefault(name, []).append(numbers(base, args.epochs, minutes))
            if args.average:
                rows.setdefault('Stable-DINO', []).append(numbers(base, args.epochs, minutes, averaged=False))
        if args.only != 'ours':
            folder = args.work_root.resolve() / f'mmdet_{args.epochs}_seed_{seed}'
            minutes = train_mmdet(args, seed, base, folder)
            rows.setdefault("mmdet's DINO", []).append(numbers(folder, args.epochs, minutes))
    table = [['', 'epochs', 'seeds', *COLUMNS.values()]]
    for name, runs in rows.items():
        values = [[run[column] for run in runs] for column in COLUMNS]
        table.append([name, str(args.epochs), str(len(runs)), *map(spread, values)])
    print(GithubFlavoredMarkdownTable(table).table)


def train_ours(args: argparse.Namespace, seed: int, work_dir: Path) -> float:
    """Train by the command; returns minutes of CPU time."""
    command = ['-m', 'mmdet_stable', 'train', args.data, '--epochs', args.epochs, '--seed', seed]
    command += ['--work-dir', work_dir, *(['--average', args.average] if args.average else [])]
    return timed(command, work_dir)


def train_mmdet(args: argparse.Namespace, seed: int, base: Path, work_dir: Path) -> float:
    """Train mmdet's DINO with the settings that the command has written for ours; returns minutes of CPU time."""
    ours = own_path(base)
    if not ours.is_file():
        raise FileNotFoundError(f'{ours}: the settings of ours are needed; leave out --only mmdet once')
    cfg = Config.fromfile(ours)
    hooks = {name: hook for name, hook in cfg.default_hooks.to_dict().items() if name != 'average'}
    path = own_path(work_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'_base_ = {str(ours)!r}\nwork_dir = {str(work_dir)!r}\n'
        f'default_hooks = dict(_delete_=True, **{pformat(hooks)})\n'
        f'model = dict(_delete_=True, **{pformat(mmdet_model(cfg.model))})\n'
    )
    return timed([ROOT / 'tools' / 'train.py', path], work_dir)


def mmdet_model(ours: Config) -> Dict[str, Any]:
    """mmdet's DINO in the size of ours."""
    model = get_config(MMDET_DINO).model
    model.num_queries, model.backbone, model.test_cfg = ours.num_queries, ours.backbone, ours.test_cfg
    model.data_preprocessor.update({key: ours.data_preprocessor[key] for key in ('mean', 'std', 'bgr_to_rgb')})
    model.neck.in_channels = ours.neck.in_channels
    for name in ('encoder', 'decoder'):
        model[name].num_layers = ours[name].num_layers
        model[name].layer_cfg.ffn_cfg.feedforward_channels = ours[name].layer_cfg.ffn_cfg.feedforward_channels
    model.bbox_head.num_classes = ours.bbox_head.num_classes
    model.dn_cfg.group_cfg.num_dn_queries = ours.dn_cfg.num_queries
    return model.to_dict()


def timed(command: List[Any], work_dir: Path) -> float:
    """Run a training unless it is finished; returns the minutes of CPU time that it took."""
    note = work_dir / 'minutes.json'
    if note.is_file():
        return json.loads(note.read_text())
    before = children_seconds()
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / 'output.txt', 'w', encoding='utf-8') as output:
        if call([sys.executable, *command], stdout=output, stderr=output):
            sys.exit(f'training failed: {work_dir / "output.txt"}')
    minutes = (children_seconds() - before) / 60
    note.write_text(json.dumps(minutes))
    return minutes


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def numbers(work_dir: Path, epochs: int, minutes: float, averaged: bool = True) -> Dict[str, Any]:
    """What `evaluate` says of the last epoch; of the weights before averaging where not ``averaged``."""
    out = work_dir / ('evaluation' if averaged else 'evaluation_before_averaging')
    checkpoint = work_dir / f'epoch_{epochs}.pth'
    if not (out / 'numbers.json').is_file():
        if not averaged:
            content = torch.load(checkpoint, map_location='cpu', weights_only=True)
            kept = {key[7:]: value for key, value in content['ema_state_dict'].items() if key.startswith('module.')}
            checkpoint = work_dir / 'before_averaging.pth'
            torch.save(dict(state_dict=kept, meta=content['meta']), checkpoint)
        command = [sys.executable, '-m', 'mmdet_stable', 'evaluate', own_path(work_dir), '--checkpoint', checkpoint]
        command += ['--out', out]
        if call(command):
            sys.exit(f'evaluation failed: {checkpoint}')
    found = json.loads((out / 'numbers.json').read_text())['bbox']
    return dict(found, minutes=minutes, correlation=100 * (found['rank_correlation'] or 0.0))


if __name__ == '__main__':
    main()
