"""How often the match of a ground truth changes from one decoder layer to the next, as Fig. 3 of Stable-DINO. Example:

python tools/analysis/unstable_score.py work_dirs/small
python tools/analysis/unstable_score.py --model configs/dino/dino_r50_12e.py dino.pth \\
    --model configs/stable_dino_r50_12e.py stable_dino.pth

Lower is more stable. Layer 1 is compared with the encoder's proposals, where the model has any. mmdet's own DETR,
Deformable-DETR and DINO can be measured too.
"""

from typing import Optional, Sequence

from inputs import add_num_images, argument_parser, explained, load_models

from mmdet_stable.evaluation import match_layers, predict_layers, unstable_scores
from mmdet_stable.evaluation.tables import write_csv
from mmdet_stable.visualization import plot_unstable_scores


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argument_parser(__doc__, 'unstable_score.png')
    add_num_images(parser)
    args = parser.parse_intermixed_args(argv)
    scores, rows = {}, []
    for subject in load_models(args):
        matches = [
            image
            for batch in subject.batches(args.num_images)
            for image in match_layers(subject.model, predict_layers(subject.model, batch))
        ]
        num_gts = sum(image.query_inds.shape[1] for image in matches)
        scores[subject.name] = unstable_scores(matches)
        rows += [(subject.name, layer, score, num_gts) for layer, score in scores[subject.name].items()]
        shown = ', '.join(f'layer {layer}: {score:.1f} %' for layer, score in scores[subject.name].items())
        print(f'{subject.name}: {shown} ({num_gts} ground truths in {len(matches)} images)')
    write_csv(args.out.with_suffix('.csv'), ('model', 'layer', 'unstable_score', 'ground_truths'), rows)
    plot_unstable_scores(scores, args.out)


if __name__ == '__main__':
    explained(main)
