"""Stable-DINO on real handwriting in minutes: make the data, train, evaluate, detect, draw. `make demo` calls it.

A second call continues an interrupted training; after a finished one it only evaluates and draws.
"""

import argparse
from pathlib import Path

from mmdet.apis import DetInferencer
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from mmengine.runner.checkpoint import find_latest_checkpoint

from mmdet_stable.datasets import write_digit_scenes

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', default=str(ROOT / 'work_dirs' / 'demo'))
    parser.add_argument('--data-root', default=str(ROOT / 'data' / 'digit_scenes'))
    parser.add_argument('--num-train', type=int, default=1000, help='training scenes')
    parser.add_argument('--num-val', type=int, default=200, help='held-out scenes, of other digits')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()

    data_root = write_digit_scenes(args.data_root, args.num_train, args.num_val)
    cfg = demo_config(data_root, args.work_dir)
    cfg.merge_from_dict(args.cfg_options)
    runner = Runner.from_cfg(cfg)
    runner.train()
    metrics = runner.test()
    picture = draw_detections(cfg, sorted((data_root / 'val').glob('*.png'))[0])
    print(f'\nCOCO AP on {args.num_val} held-out scenes: {metrics["coco/bbox_mAP"]:.3f}')
    print(f'checkpoint: {find_latest_checkpoint(cfg.work_dir)}\npicture:    {picture}')


def demo_config(data_root: Path, work_dir: str) -> Config:
    """The demo's config for this data and work dir, resuming where there is something to resume."""
    cfg = Config.fromfile(ROOT / 'configs' / 'demo_digits.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data_root)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(data_root / 'annotations' / 'instances_val.json')
    cfg.work_dir = work_dir
    cfg.resume = True
    return cfg


def draw_detections(cfg: Config, image: Path) -> Path:
    """Detect with mmdet's inferencer, as a user would, and return the drawn picture."""
    checkpoint = find_latest_checkpoint(cfg.work_dir)
    inferencer = DetInferencer(cfg.filename, weights=checkpoint, show_progress=False)
    inferencer(str(image), out_dir=cfg.work_dir, pred_score_thr=0.3)
    return Path(cfg.work_dir) / 'vis' / image.name


if __name__ == '__main__':
    main()
