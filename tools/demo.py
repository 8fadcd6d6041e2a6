"""Stable-DINO on real handwriting in minutes: make the data, train, evaluate, detect, draw, report.

`make demo` calls it. A second call continues an interrupted training; after a finished one it only evaluates, draws and
reports.
"""

import argparse
from pathlib import Path
from typing import List

import cv2
import numpy as np
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.device import get_device

from mmdet_stable import config
from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.engine.console import build_runner
from mmdet_stable.engine.downloads import fetch_weights
from mmdet_stable.engine.launch import check_training, check_work_dir, only_training, resume
from mmdet_stable.utils.arguments import SettingsAction
from mmdet_stable.utils.work_dir import latest_checkpoint
from mmdet_stable.visualization.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', default='work_dirs/demo')
    parser.add_argument('--data-root', default='data/digit_scenes')
    parser.add_argument('--num-train', type=int, default=1000, help='training scenes')
    parser.add_argument('--num-val', type=int, default=200, help='held-out scenes, of other digits')
    parser.add_argument('--masks', action='store_true', help='train Stable-MaskDINO, and draw masks')
    parser.add_argument('--cfg-options', nargs='+', action=SettingsAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()

    data_root = write_digit_scenes(args.data_root, args.num_train, args.num_val)
    cfg = demo_config(data_root, args.work_dir, 'demo_digits_masks' if args.masks else 'demo_digits')
    cfg.merge_from_dict(args.cfg_options)
    check_training(cfg)
    check_work_dir(cfg.work_dir)
    fetch_weights(cfg)
    with only_training(cfg.work_dir):
        runner = build_runner(cfg)
        runner.train()
        metrics = runner.test()
    picture = draw_detections(cfg, sorted((data_root / 'val').glob('*.png'))[:6])
    report = Path(cfg.work_dir) / 'report.html'
    write_report([Path(cfg.work_dir)], report, get_device())
    print(f'\nCOCO AP on {args.num_val} held-out scenes: {metrics["coco/bbox_mAP"]:.3f}')
    if args.masks:
        print(f'mask AP: {metrics["coco/segm_mAP"]:.3f}')
    print(f'checkpoint: {latest_checkpoint(cfg.work_dir)}\npicture:    {picture}\nreport:     {report}')


def demo_config(data_root: Path, work_dir: str, name: str) -> Config:
    """The demo's config for this data and work dir, resuming where there is something to resume."""
    cfg = Config.fromfile(config(name))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data_root)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(data_root / 'annotations' / 'instances_val.json')
    cfg.work_dir = work_dir
    resume(cfg)
    return cfg


def draw_detections(cfg: Config, images: List[Path], scale: int = 3, columns: int = 3) -> Path:
    """Detect with mmdet's inferencer, as a user would, and save the drawings side by side as one picture."""
    inferencer = DetInferencer(cfg, weights=latest_checkpoint(cfg.work_dir), show_progress=False)
    # Enlarged, so that boxes and labels are drawn finely. Repeated pixels, so that the model gets back what was there.
    scenes = [cv2.imread(str(path)).repeat(scale, axis=0).repeat(scale, axis=1) for path in images]
    drawn = inferencer(scenes, return_vis=True, pred_score_thr=0.2, no_save_pred=True)['visualization']
    rows = [np.hstack(drawn[start : start + columns]) for start in range(0, len(drawn), columns)]
    picture = Path(cfg.work_dir) / 'detections.png'
    cv2.imwrite(str(picture), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    return picture


if __name__ == '__main__':
    main()
