"""Evaluate a checkpoint, with mmdet's conventions. Example:

python tools/test.py configs/stable_dino_r50_12e.py work_dirs/stable_dino_r50_12e/epoch_12.pth
"""

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults

from mmdet_stable.engine.config_checks import check_model
from mmdet_stable.engine.console import build_runner
from mmdet_stable.engine.launch import argument_parser, check_annotation_files, ends_process_group, load_config
from mmdet_stable.engine.unknown_settings import UnknownSettingError
from mmdet_stable.utils.user_errors import without_traceback


@ends_process_group
def main() -> None:
    parser = argument_parser('Evaluate a detector')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='dump the predictions to this pickle file')
    parser.add_argument('--show', action='store_true', help='show the detections')
    parser.add_argument('--show-dir', help='save drawn detections under the work dir, in this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between shown images')
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out}: the file must end with .pkl or .pickle')

    with without_traceback():
        cfg = load_config(args)
        check_model(cfg)
        check_annotation_files(cfg, ['test_dataloader', 'test_evaluator'])
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    with without_traceback((UnknownSettingError,)):  # other errors of components keep their traceback
        runner = build_runner(cfg)
        if args.out is not None:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
        runner.test()


if __name__ == '__main__':
    main()
