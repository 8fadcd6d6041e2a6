"""Figure of detections side by side."""

from typing import List, Mapping, Sequence

import numpy as np

from mmdet_stable.evaluation.detections import Boxes, right_and_found

from .canvas import bare_panel, box_colours, draw_boxes, draw_masks, image_panels, show_image
from .fonts import save
from .output import Output

FONTSIZE = 9  # legible also where the panel is as narrow as a phone
TRUTH, RIGHT, WRONG, MISSED = '#4d4d4d', '#2e8b57', '#d62728', '#b35900'


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
            colours = box_colours(boxes[row].labels)
            draw_masks(axes, boxes[row].masks, colours)
            draw_boxes(axes, boxes[row].boxes_xyxy, texts_of(boxes[row], classes), colours)
    save(figure, output, dpi=105)


def texts_of(boxes: Boxes, classes: Sequence[str]) -> List[str]:
    """What to write on each box, e.g. ``'7  0.93'``."""
    names = [classes[label] for label in boxes.labels]
    if boxes.scores is None:
        return names
    return [f'{name}  {score:.2f}' for name, score in zip(names, boxes.scores)]


def plot_truth(image: np.ndarray, truth: Boxes, classes: Sequence[str], output: Output) -> None:
    """The ground truth of one image (H, W, 3), RGB, as a JPEG."""
    figure, axes = bare_panel(image)
    show_image(axes, image)
    colours = [TRUTH] * len(truth.labels)
    draw_masks(axes, truth.masks, colours)
    draw_boxes(axes, truth.boxes_xyxy, texts_of(truth, classes), colours, fontsize=FONTSIZE)
    save(figure, output, dpi=160, format='jpg')


def plot_judged(image: np.ndarray, truth: Boxes, detected: Boxes, classes: Sequence[str], output: Output) -> None:
    """Detections in one image (H, W, 3), RGB, right and wrong ones, and missed ground truths, dashed; as a JPEG."""
    right, found = right_and_found(truth, detected)
    missed = truth.where(~found)
    figure, axes = bare_panel(image)
    show_image(axes, image)
    colours = [RIGHT if good else WRONG for good in right]
    draw_masks(axes, detected.masks, colours)
    texts = [text if good else f'\N{BALLOT X} {text}' for text, good in zip(texts_of(detected, classes), right)]
    draw_boxes(axes, detected.boxes_xyxy, texts, colours, fontsize=FONTSIZE)
    texts = [f'missed {text}' for text in texts_of(missed, classes)]
    draw_boxes(axes, missed.boxes_xyxy, texts, [MISSED] * len(texts), ['--'] * len(texts), FONTSIZE, at_bottom=True)
    save(figure, output, dpi=160, format='jpg')
