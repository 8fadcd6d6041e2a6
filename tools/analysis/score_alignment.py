"""Are well-placed queries the ones with high scores? Score against IoU, as Fig. 6 of Stable-DINO. Example:

python tools/analysis/score_alignment.py work_dirs/small --top 30

Takes, from each image, the queries of the highest IoU with any ground truth after the last decoder layer.
"""

from typing import Optional, Sequence

from inputs import add_num_images, argument_parser, explained, load_models

from mmdet_stable.evaluation.pair_quality import correlation, score_alignment
from mmdet_stable.evaluation.tables import write_csv
from mmdet_stable.visualization import plot_score_alignment


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argument_parser(__doc__, 'score_alignment.png')
    add_num_images(parser)
    parser.add_argument('--top', type=int, default=30, help='queries of each image')
    args = parser.parse_intermixed_args(argv)
    points = {
        subject.name: score_alignment(subject.model, subject.batches(args.num_images), args.top)
        for subject in load_models(args)
    }
    for name, rows in points.items():
        print(f'{name}: correlation of IoU and score {correlation(rows):.3f}, over {len(rows)} queries')
    rows = [(name, iou, score) for name, pairs in points.items() for iou, score in pairs.tolist()]
    write_csv(args.out.with_suffix('.csv'), ('model', 'iou', 'score'), rows)
    plot_score_alignment(points, args.out)


if __name__ == '__main__':
    explained(main)
