"""Figure of sampling points."""

import numpy as np

from mmdet_stable.evaluation.sampling_points import SamplingPoints

from .canvas import draw_boxes, image_panels, show_image
from .fonts import save
from .output import Output


def plot_sampling_points(image: np.ndarray, samples: SamplingPoints, output: Output, title: str = '') -> None:
    """One panel per level: the points that all heads sample, coloured by weight, and the reference point as a star.

    Args:
        image: (H, W, 3), RGB. Points outside are not shown; a panel's title says how much weight its level has.

    Source: arXiv:2304.04742 Fig. 9.
    """
    num_levels = samples.points.shape[1]
    columns = min(num_levels, 4)
    figure, panels = image_panels(-(-num_levels // columns), columns, image)
    shown = samples.weights.max()
    for level, axes in enumerate(panels[:num_levels]):
        points, weights = samples.points[:, level].reshape(-1, 2), samples.weights[:, level].ravel()
        share = weights.sum() / samples.weights.sum()
        show_image(axes, image, f'level {level}: {share:.0%} of the weight')
        if samples.box_xyxy is not None:
            draw_boxes(axes, samples.box_xyxy[None], [f'query {samples.query}'], ['0.3'])
        order = weights.argsort()  # heavy points on top
        xs, ys, sizes = points[order, 0], points[order, 1], weights[order]
        dots = axes.scatter(xs, ys, c=sizes, s=22, cmap='plasma', vmin=0, vmax=shown, edgecolors='k', linewidths=0.3)
        axes.plot(*samples.reference, marker='*', markersize=13, color='lime', markeredgecolor='k')
    for axes in panels[num_levels:]:
        axes.set_axis_off()
    figure.colorbar(dots, ax=panels, shrink=0.8, label='attention weight')
    figure.suptitle(title, fontsize=9)
    save(figure, output, dpi=110)
