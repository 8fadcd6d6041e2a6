"""Train a detector, with mmdet's conventions. Example:

python tools/train.py configs/stable_dino_r50_12e.py --cfg-options train_dataloader.batch_size=4
"""

from mmdet_stable.engine.console import build_runner
from mmdet_stable.engine.downloads import fetch_weights
from mmdet_stable.engine.launch import (
    argument_parser,
    check_training,
    check_work_dir,
    ends_process_group,
    load_config,
    only_training,
    resume,
)
from mmdet_stable.utils.unknown_settings import UnknownSettingError
from mmdet_stable.utils.user_errors import without_traceback


@ends_process_group
def main() -> None:
    parser = argument_parser('Train a detector')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the total batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from a checkpoint; without a value, from the latest in the work dir',
    )
    args = parser.parse_args()
    with without_traceback():
        cfg = load_config(args)
        if args.amp:
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        if args.auto_scale_lr:
            if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
                parser.error(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size')
            cfg.auto_scale_lr.enable = True
        check_training(cfg)
        check_work_dir(cfg.work_dir)
        fetch_weights(cfg)
    # Errors of components, which may be the user's own, keep their traceback.
    with without_traceback((UnknownSettingError, BlockingIOError)), only_training(cfg.work_dir, cfg.launcher):
        if args.resume is not None:
            resume(cfg, args.resume)
        runner = build_runner(cfg)
        runner.train()


if __name__ == '__main__':
    main()
