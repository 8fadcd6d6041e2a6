"""Picture of what a model is trained on."""

from typing import Sequence

import numpy as np

from mmdet_stable.evaluation.detections import Boxes

from .canvas import box_colours, draw_boxes, image_panels, show_image
from .fonts import save
from .output import Output

COLUMNS = 4


def plot_samples(images: Sequence[np.ndarray], boxes: Sequence[Boxes], classes: Sequence[str], output: Output) -> None:
    """Images with their boxes in a grid.

    Args:
        images: (H, W, 3) each, RGB, of any sizes; at least one.
        boxes: of each image, in its pixels.
        classes: names.
    """
    columns = min(COLUMNS, len(images))
    largest = max(images, key=lambda image: image.shape[0] / image.shape[1])
    figure, panels = image_panels(-(-len(images) // columns), columns, largest)
    for axes in panels:
        axes.set_axis_off()
    for axes, image, found in zip(panels, images, boxes):
        show_image(axes, image)
        names = [classes[label] for label in found.labels]
        draw_boxes(axes, found.boxes_xyxy, names, box_colours(found.labels))
    save(figure, output, dpi=105)
