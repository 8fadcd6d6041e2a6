"""Detections of models side by side, beside the ground truth, as Fig. 10 of Stable-DINO. Examples:

python tools/analysis/compare_detections.py work_dirs/small --num-images 4
python tools/analysis/compare_detections.py work_dirs/small --images street.jpg photos/ --score-thr 0.4

Without --images, the first images of the test set are shown, and their ground truth.
"""

from pathlib import Path
from typing import Dict, List, Optional, Sequence

from inputs import add_num_images, argument_parser, explained, image_of, load_models

from mmdet_stable.evaluation import Subject
from mmdet_stable.evaluation.detections import boxes_of, detect
from mmdet_stable.evaluation.tables import write_csv
from mmdet_stable.visualization import plot_detections

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argument_parser(__doc__, 'detections.png')
    add_num_images(parser, default=4)
    parser.add_argument('--images', nargs='+', type=Path, metavar='PATH', help='images and folders of images')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score of a box that is shown')
    args = parser.parse_intermixed_args(argv)
    subjects = load_models(args)
    files = image_files(args.images) if args.images else None
    batches = {subject.name: batches_of(subject, files, args.num_images) for subject in subjects}
    first = batches[subjects[0].name]
    found = {}
    if not files:
        found['ground truth'] = [boxes_of(batch['data_samples'][0].gt_instances) for batch in first]
    for subject in subjects:
        detected = [detect(subject.model, batch)[0] for batch in batches[subject.name]]
        found[subject.name] = [boxes.above(args.score_thr) for boxes in detected]
        print(f'{subject.name}: {sum(len(boxes.labels) for boxes in found[subject.name])} boxes')
    classes = subjects[0].dataset.metainfo['classes']
    rows = [
        (source, batch['data_samples'][0].img_path, classes[label], score, *box)
        for source, images in found.items()
        for batch, boxes in zip(first, images)
        for label, score, box in zip(
            *(boxes.labels, [''] * len(boxes.labels) if boxes.scores is None else boxes.scores.tolist()),
            boxes.boxes_xyxy.tolist(),
        )
    ]
    write_csv(args.out.with_suffix('.csv'), ('source', 'image', 'class', 'score', 'x1', 'y1', 'x2', 'y2'), rows)
    plot_detections([image_of(batch) for batch in first], found, classes, args.out)


def image_files(paths: Sequence[Path]) -> List[Path]:
    """The images named, and those in the folders named."""
    files = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f'--images {path} does not exist')
        files += sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ValueError(f'--images {" ".join(map(str, paths))}: no images there, of {", ".join(SUFFIXES)}')
    return files


def batches_of(subject: Subject, files: Optional[List[Path]], num_images: int) -> List[Dict[str, list]]:
    return [subject.file_batch(file) for file in files] if files else list(subject.batches(num_images))


if __name__ == '__main__':
    explained(main)
