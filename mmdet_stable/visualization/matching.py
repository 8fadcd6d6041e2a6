"""Figures of matching: unstable scores, alignment of score and position, and the trace of one image."""

from typing import Mapping, Sequence

import numpy as np

from mmdet_stable.evaluation.pair_quality import MatchingTrace, correlation

from .canvas import COLOURS, box_colours, draw_boxes, image_panels, new_panels, show_image
from .fonts import save
from .output import Output


def plot_unstable_scores(scores: Mapping[str, Mapping[int, float]], output: Output, title: str = '') -> None:
    """One line per model: unstable score in percent against the decoder layer, as in arXiv:2304.04742 Fig. 3."""
    figure, (axes,) = new_panels(1, 1, (6, 4))
    for (name, layers), colour in zip(scores.items(), COLOURS * len(scores)):
        axes.plot(list(layers), list(layers.values()), marker='o', color=colour, label=name)
    axes.set(title=title, xlabel='decoder layer', ylabel='unstable score in %', ylim=(0, None))
    axes.locator_params(axis='x', integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, output, dpi=150)


def plot_score_alignment(points: Mapping[str, np.ndarray], output: Output) -> None:
    """One panel per model: score against IoU of its queries, rows of (N, 2), as in arXiv:2304.04742 Fig. 6."""
    figure, panels = new_panels(1, len(points), (4, 4), shared=True)
    for axes, (name, rows), colour in zip(panels, points.items(), COLOURS * len(points)):
        axes.scatter(rows[:, 0], rows[:, 1], s=14, alpha=0.5, color=colour, linewidths=0)
        axes.plot([0, 1], [0, 1], color='0.7', linewidth=1, linestyle='--', zorder=0)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel='IoU with the closest ground truth', aspect='equal')
        axes.set_title(f'{name}: correlation {correlation(rows):.2f}', fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("score of that ground truth's class")
    save(figure, output, dpi=150)


def plot_matching_trace(
    image: np.ndarray, trace: MatchingTrace, classes: Sequence[str], output: Output, max_objects: int = 8
) -> None:
    """Ground truth, then the matched queries of every layer, dashed where the query is another than before.

    Args:
        image: (H, W, 3), RGB.
        classes: names.
        max_objects: how many ground truths to draw, those whose query changes most often; titles count all.

    Raises:
        ValueError: if ``max_objects`` is below 1.
    """
    if max_objects < 1:
        raise ValueError(f'max_objects={max_objects}: at least 1 is needed')
    num_objects = len(trace.gt_labels)
    shown = np.sort(np.argsort(-trace.changed.sum(0), kind='stable')[:max_objects])
    colours = box_colours(range(len(shown)))
    num_panels = 1 + len(trace.layers)
    columns = num_panels if num_panels <= 3 else 2 if num_panels == 4 else 3
    figure, panels = image_panels(-(-num_panels // columns), columns, image, width=4.8)
    show_image(panels[0], image, f'ground truth: {len(shown)} of {num_objects} objects')
    draw_boxes(panels[0], trace.gt_boxes_xyxy[shown], [classes[label] for label in trace.gt_labels[shown]], colours)
    for axes, layer, queries, boxes, changed in zip(
        panels[1:], trace.layers, trace.query_inds, trace.boxes_xyxy, trace.changed
    ):
        name = f'decoder layer {layer}' if layer else "encoder's proposals"
        compared = layer != trace.layers[0]
        show_image(axes, image, f'{name}: {changed.sum()} of {len(queries)} changed' if compared else name)
        styles = ['--' if change else '-' for change in changed[shown]]
        draw_boxes(axes, boxes[shown], [str(query) for query in queries[shown]], colours, styles)
    for axes in panels[num_panels:]:
        axes.set_axis_off()
    figure.suptitle('Numbers of the matched queries; dashed: another query than in the layer before', fontsize=9)
    save(figure, output, dpi=105)
