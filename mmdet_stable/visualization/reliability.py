"""Figure of calibration: what detections of a score are worth."""

from typing import Mapping, Sequence

from mmdet_stable.evaluation.calibration import Bin

from .canvas import COLOURS, new_panels
from .fonts import save
from .output import Output


def plot_reliability(models: Mapping[str, Sequence[Bin]], output: Output) -> None:
    """One panel per model: mean IoU against mean score of each bin, the diagonal of perfect calibration, and the share
    of the detections in each bin as bars."""
    figure, panels = new_panels(1, len(models), (4, 4), shared=True)
    for axes, (name, bins), colour in zip(panels, models.items(), COLOURS * len(models)):
        axes.plot([0, 1], [0, 1], color='0.7', linewidth=1, linestyle='--', zorder=0)
        scores = [part.score for part in bins]
        axes.bar(scores, [part.share for part in bins], width=0.03, color='0.85', label='share of the detections')
        axes.plot(scores, [part.iou for part in bins], marker='o', color=colour, label='mean IoU, 0 for false ones')
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel='score', aspect='equal')
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc='upper left')
    save(figure, output, dpi=150)
