"""Where deformable attention looks, level by level, as Fig. 9 of Stable-DINO. Examples:

python tools/analysis/sampling_points.py work_dirs/small/dino_nms --index 3             # encoder, at the best detection
python tools/analysis/sampling_points.py work_dirs/small/dino_nms --part decoder --image street.jpg --point 320 200

The star is the reference point; points of all heads are coloured by their attention weight.
"""

from typing import Optional, Sequence

from inputs import argument_parser, explained, image_of, single_model

from mmdet_stable.evaluation.sampling_points import PARTS, sampling_points
from mmdet_stable.evaluation.tables import write_csv
from mmdet_stable.visualization import plot_sampling_points


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argument_parser(__doc__, 'sampling_points.png')
    parser.add_argument('--index', type=int, default=0, help='of the image in the test set')
    parser.add_argument('--image', help='another image, in place of one of the test set')
    parser.add_argument('--part', choices=PARTS, default='encoder')
    parser.add_argument('--layer', type=int, default=-1, help='counted from 0; -1 is the last')
    parser.add_argument('--point', nargs=2, type=float, metavar=('X', 'Y'), help='pixels; default: the best detection')
    parser.add_argument('--level', type=int, default=0, help="of the encoder's token at the point; 0 is the finest")
    args = parser.parse_intermixed_args(argv)
    subject = single_model(args)
    batch = subject.file_batch(args.image) if args.image else subject.batch(args.index)
    point = tuple(args.point) if args.point else None
    samples = sampling_points(subject.model, batch, args.part, args.layer, point, args.level)
    num_heads, num_levels, num_points = samples.weights.shape
    rows = [
        (head, level, number, *map(float, samples.points[head, level, number]))
        + (float(samples.weights[head, level, number]),)
        for head in range(num_heads)
        for level in range(num_levels)
        for number in range(num_points)
    ]
    write_csv(args.out.with_suffix('.csv'), ('head', 'level', 'point', 'x', 'y', 'weight'), rows)
    x, y = samples.reference
    what = f'{subject.name}, {args.part} layer {args.layer}, reference ({x:.0f}, {y:.0f})'
    plot_sampling_points(image_of(batch), samples, args.out, what)
    print(f'{what}: ' + ', '.join(f'level {i}: {w:.0%}' for i, w in enumerate(samples.weights.mean(0).sum(-1))))


if __name__ == '__main__':
    explained(main)
