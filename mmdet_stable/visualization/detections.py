"""Figure of detections side by side."""

from typing import List, Mapping, Sequence

import numpy as np

from mmdet_stable.evaluation.detections import Boxes

from .canvas import box_colours, draw_boxes, image_panels, show_image
from .output import Output


def plot_detections(
    images: Sequence[np.ndarray], found: Mapping[str, Sequence[Boxes]], classes: Sequence[str], output: Output
) -> None:
    """One row per image, one column per source, e.g. ``'ground truth'`` and names of models.

    Args:
        images: (H, W, 3) each, RGB.
        found: source -> boxes of each image, as they are to be shown.
        classes: names.

    Raises:
        ValueError: for no images.

    Source: arXiv:2304.04742 Fig. 10.
    """
    if not len(images):
        raise ValueError('no images to draw')
    figure, panels = image_panels(len(images), len(found), images[0])
    for row, image in enumerate(images):
        for column, (name, boxes) in enumerate(found.items()):
            axes = panels[row * len(found) + column]
            show_image(axes, image, name if row == 0 else '')
            draw_boxes(axes, boxes[row].boxes_xyxy, texts_of(boxes[row], classes), box_colours(boxes[row].labels))
    figure.savefig(output, dpi=105)


def texts_of(boxes: Boxes, classes: Sequence[str]) -> List[str]:
    """What to write on each box, e.g. ``'7  0.93'``."""
    names = [classes[label] for label in boxes.labels]
    if boxes.scores is None:
        return names
    return [f'{name}  {score:.2f}' for name, score in zip(names, boxes.scores)]
