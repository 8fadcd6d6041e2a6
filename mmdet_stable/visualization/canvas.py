"""What the figures share: colours, panels, images with boxes."""

from typing import Iterable, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as run_lengths

COLOURS = ('#4d4d4d', '#d62728', '#1f77b4', '#2ca02c', '#ff7f0e', '#9467bd', '#8c564b', '#e377c2')
MASK_OPACITY = 0.4
BOX_COLOURS = (
    '#e6194b',
    '#4363d8',
    '#d2691e',
    '#2e8b57',
    '#911eb4',
    '#0089a7',
    '#808000',
    '#c71585',
    '#8b4513',
    '#5a5a5a',
)


def new_panels(rows: int, columns: int, size: Tuple[float, float], shared: bool = False) -> Tuple[Figure, List[Axes]]:
    """A figure without a window, and its axes row by row.

    Args:
        size: width and height of one panel in inches.
        shared: whether all panels have the same axes.
    """
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
    return figure, list(axes.flat)


def image_panels(rows: int, columns: int, image: np.ndarray, width: float = 3.2) -> Tuple[Figure, List[Axes]]:
    """Panels for images of the shape of ``image`` (H, W, 3), with room for a title."""
    height, pixels = image.shape[:2]
    return new_panels(rows, columns, (width, width * height / pixels + 0.3))


def bare_panel(image: np.ndarray, width: float = 4.5) -> Tuple[Figure, Axes]:
    """A figure that is the image (H, W, 3) and nothing around it, ``width`` inches wide."""
    height, pixels = image.shape[:2]
    figure = Figure(figsize=(width, width * height / pixels))
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0, 0, 1, 1))


def show_image(axes: Axes, image: np.ndarray, title: str = '') -> None:
    """An image (H, W, 3), RGB; what is drawn later stays within it."""
    height, width = image.shape[:2]
    axes.imshow(image, interpolation='nearest', extent=(0, width, height, 0))  # pixel edges, as boxes count
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))


def draw_masks(axes: Axes, masks: Optional[Sequence[dict]], colours: Sequence[str]) -> None:
    """Masks as translucent areas, of sources that have masks.

    Args:
        masks: N run-lengths of the image's size, the first of which lie on top; None for no masks.
        colours: N.
    """
    if not masks:
        return
    height, width = masks[0]['size']
    overlay = np.zeros((height, width, 4))
    for mask, colour in reversed(list(zip(masks, colours))):
        overlay[run_lengths.decode(mask).astype(bool)] = to_rgba(colour, MASK_OPACITY)
    axes.imshow(overlay, interpolation='nearest', extent=(0, width, height, 0))


def draw_boxes(
    axes: Axes,
    boxes_xyxy: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[str],
    styles: Optional[Sequence[str]] = None,
    fontsize: float = 6,
    at_bottom: bool = False,
) -> None:
    """Boxes (N, 4) in pixels of the image, each with a text at its top or bottom left corner and a line style."""
    for (x1, y1, x2, y2), text, colour, style in zip(boxes_xyxy, texts, colours, styles or ['-'] * len(texts)):
        axes.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.5, linestyle=style)
        )
        axes.text(
            *(max(x1, 0), min(y2, axes.get_ylim()[0]) if at_bottom else max(y1, 0), text),
            fontsize=fontsize,
            color='white',
            clip_on=True,
            parse_math=False,  # a name may have dollar signs
            verticalalignment='bottom' if at_bottom or y1 > 0.08 * axes.get_ylim()[0] else 'top',
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.8, alpha=0.85),
        )


def box_colours(inds: Iterable[int]) -> List[str]:
    """A colour for each class, or each object, by its number."""
    return [BOX_COLOURS[index % len(BOX_COLOURS)] for index in inds]
