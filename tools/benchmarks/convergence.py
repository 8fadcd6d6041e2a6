"""DINO, Stable-DINO and each component alone at small size, under equal budgets, with several seeds. Examples:

python tools/benchmarks/convergence.py    # on digit scenes; hours on 2 cores, can be stopped and called again
python tools/benchmarks/convergence.py --rows 6.1 6.6 --seeds 60 61 --epochs 4
python tools/benchmarks/convergence.py --train bccd/train.json bccd/images --val bccd/val.json bccd/images

Writes convergence.png, .md and .csv into the folder given by --out. Without --train and --val, the digit scenes are
made first. Other families need a small model of their own, and rows of theirs: denoising on and off, for example, by
--overlay configs/demo_digits_dn_detr.py --rows dn.1 dn.2
"""

import argparse
import json
import sys
from pathlib import Path

from mmengine.config import Config
from terminaltables import GithubFlavoredMarkdownTable

from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.engine.launch import own_settings
from mmdet_stable.evaluation import METRICS, find_runs, load_manifest, spread
from mmdet_stable.evaluation.curves import Curves, read_curves, write_curves
from mmdet_stable.utils.children import INTERRUPTED, call, stoppable
from mmdet_stable.visualization import plot_convergence

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / 'configs' / 'manifest.yml'
OVERLAY = ROOT / 'configs' / 'demo_digits.py'


def main() -> int:
    args, options_of_the_sweep = parse_args()
    args.work_root.mkdir(parents=True, exist_ok=True)
    overlay, data = args.overlay, 'digit scenes'
    if args.train or args.epochs:
        overlay = args.work_root / 'overlay.py'
        overlay_of(args).dump(overlay)
    if args.train:
        data = args.train[1].resolve().parent.name
    else:
        write_digit_scenes('data/digit_scenes')
    sweep = [sys.executable, ROOT / 'tools' / 'analysis' / 'ablation_table.py', '--run', '--rows', *args.rows]
    sweep += ['--overlay', overlay, '--work-root', args.work_root, *options_of_the_sweep]
    try:
        with stoppable():
            code = call(sweep)
    except KeyboardInterrupt:
        return INTERRUPTED
    names = {row.stem: row.name for row in load_manifest(MANIFEST) if row.id in args.rows}
    finished = [log for log in find_runs([args.work_root])[0] if log.finished]
    curves, remarks = read_curves(finished, args.metric, names)
    print('\n'.join(remarks), end='\n' if remarks else '', file=sys.stderr)
    if not curves:
        print('no run is finished: nothing to draw', file=sys.stderr)
        return code or 1
    out = args.out or args.work_root
    out.mkdir(parents=True, exist_ok=True)
    write_tables(curves, out, args.metric)
    runs = {name: list(runs.values()) for name, runs in curves.items()}
    plot_convergence(runs, out / 'convergence.png', f'{data}: mean and range over seeds', args.metric)
    print((out / 'convergence.md').read_text(), f'\nplot: {out / "convergence.png"}', sep='')
    return code


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Other options go to tools/analysis/ablation_table.py: --seeds, --gpus, --cfg-options.',
    )
    parser.add_argument('--train', nargs=2, type=Path, metavar=('ANNOTATIONS', 'IMAGES'), help='COCO-format set')
    parser.add_argument('--val', nargs=2, type=Path, metavar=('ANNOTATIONS', 'IMAGES'))
    parser.add_argument(
        '--size', nargs=2, type=int, default=[160, 128], metavar=('W', 'H'), help='of images, in pixels'
    )
    parser.add_argument('--overlay', type=Path, default=OVERLAY, help='the small model, a config')
    parser.add_argument('--epochs', type=int, metavar='N', help='default 8; the learning rate drops before the last')
    parser.add_argument('--backbone', type=Path, metavar='CHECKPOINT', help='start from the backbone of this detector')
    parser.add_argument('--rows', nargs='+', default=['6.1', '6.9', '6.2', '6.8', '6.7', '6.6'], help='of the manifest')
    parser.add_argument('--metric', choices=list(METRICS), default='AP')
    parser.add_argument('--work-root', type=Path, default=Path('work_dirs/convergence'))
    parser.add_argument('--out', type=Path, help='folder for table and plot; default: --work-root')
    args, rest = parser.parse_known_args()
    if bool(args.train) != bool(args.val):
        parser.error('--train and --val belong together')
    if args.backbone and not args.train:
        parser.error('--backbone needs --train and --val: on digit scenes everything starts from scratch')
    return args, rest if '--seeds' in rest else ['--seeds', '60', '61', '62', *rest]


def overlay_of(args: argparse.Namespace) -> Config:
    """The overlay, with another data set in place of the digit scenes, or another schedule."""
    cfg = Config(own_settings(args.overlay))
    if args.epochs:
        cfg.train_cfg.max_epochs = cfg.param_scheduler[1].end = args.epochs
        cfg.param_scheduler[1].milestones = [args.epochs - 1]
    if args.train:
        set_data(cfg, args)
    return cfg


def set_data(cfg: Config, args: argparse.Namespace) -> None:
    categories = json.loads(args.train[0].read_text())['categories']
    classes = tuple(category['name'] for category in categories)
    for loader, (annotations, images) in [('train', args.train), ('val', args.val)]:
        dataset = cfg[f'{loader}_dataloader'].dataset
        dataset.update(
            data_root='',
            metainfo=dict(classes=classes),
            ann_file=str(annotations.resolve()),
            data_prefix=dict(img=str(images.resolve())),
        )
        for transform in dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = tuple(args.size)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator = cfg.test_evaluator = dict(ann_file=str(args.val[0].resolve()))
    cfg.model.bbox_head.num_classes = len(classes)
    if args.backbone:
        cfg.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=str(args.backbone.resolve()), prefix='backbone.'
        )


def write_tables(curves: Curves, out: Path, metric: str) -> None:
    """convergence.csv holds every value, convergence.md means with the sample standard deviation over seeds."""
    write_curves(curves, out / 'convergence.csv', metric)
    epochs = sorted({epoch for runs in curves.values() for run in runs.values() for epoch in run})
    table = [['name', 'seeds', *(f'{metric}, epoch {epoch}' for epoch in epochs)]]
    for name, runs in curves.items():
        values = [[run[epoch] for run in runs.values() if epoch in run] for epoch in epochs]
        table.append([name, str(len(runs)), *map(spread, values)])
    (out / 'convergence.md').write_text(GithubFlavoredMarkdownTable(table).table + '\n')


if __name__ == '__main__':
    sys.exit(main())
