"""Which query each ground truth of one image is matched to, after the encoder and every decoder layer. Example:

python tools/analysis/matching_trace.py work_dirs/small/dino_nms --index 3

Dashed boxes belong to another query than in the layer before.
"""

from typing import Optional, Sequence

from inputs import argument_parser, explained, image_of, single_model

from mmdet_stable.evaluation.pair_quality import MatchingTrace, matching_trace
from mmdet_stable.evaluation.tables import write_csv
from mmdet_stable.visualization import plot_matching_trace


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argument_parser(__doc__, 'matching_trace.png')
    parser.add_argument('--index', type=int, default=0, help='of the image in the test set')
    parser.add_argument(
        '--max-objects', type=int, default=8, help='how many to draw, those whose query changes most; the CSV has all'
    )
    args = parser.parse_intermixed_args(argv)
    subject = single_model(args)
    batch = subject.batch(args.index)
    trace, classes = matching_trace(subject.model, batch), subject.dataset.metainfo['classes']
    write_trace(trace, classes, args.out.with_suffix('.csv'))
    plot_matching_trace(image_of(batch), trace, classes, args.out, args.max_objects)
    for gt, label in enumerate(trace.gt_labels):
        queries = ' -> '.join(map(str, trace.query_inds[:, gt]))
        print(f'ground truth {gt} ({classes[label]}): {queries}')


def write_trace(trace: MatchingTrace, classes: Sequence[str], path) -> None:
    rows = [
        (gt, classes[label], layer, trace.query_inds[i, gt], int(trace.changed[i, gt]))
        + (float(trace.ious[i, gt]), float(trace.scores[i, gt]))
        for gt, label in enumerate(trace.gt_labels)
        for i, layer in enumerate(trace.layers)
    ]
    write_csv(path, ('ground_truth', 'class', 'layer', 'query', 'changed', 'iou', 'score'), rows)


if __name__ == '__main__':
    explained(main)
