"""AP against epochs, with the spread of several seeds."""

from typing import Mapping, Sequence

import numpy as np

from .canvas import COLOURS, new_panels
from .fonts import save
from .output import Output


def plot_convergence(
    curves: Mapping[str, Sequence[Mapping[int, float]]], output: Output, title: str = '', ylabel: str = 'AP'
) -> None:
    """Draw one line per name: the mean over its runs, in a band from the lowest to the highest.

    Args:
        curves: name -> runs, each ``{epoch: value}``. An epoch is drawn where every run of the name has it.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not any(runs for runs in curves.values()):
        raise ValueError('no curves to draw: no run was validated yet')
    figure, (axes,) = new_panels(1, 1, (8, 5))
    for (name, runs), colour in zip(curves.items(), COLOURS * len(curves)):
        epochs = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
        if not epochs:
            continue
        values = np.array([[run[epoch] for epoch in epochs] for run in runs])
        label = f'{name}: {values[:, -1].mean():.1f}'
        if len(runs) > 1:
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(epochs, values.mean(0), color=colour, marker='o', markersize=4, label=label)
    axes.set(title=title, xlabel='epoch', ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.locator_params(axis='x', integer=True)
    handles, labels = axes.get_legend_handles_labels()
    best_first = sorted(range(len(labels)), key=lambda i: -float(labels[i].rsplit(' ', 1)[1]))
    axes.legend(
        [handles[i] for i in best_first], [labels[i] for i in best_first], title='at the end', loc='lower right'
    )
    save(figure, output, dpi=150)
