"""Curves of validated metrics, read from work dirs and written as a table."""

from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

from .comparison import runs_that_belong_together
from .run_log import RunLog
from .tables import write_csv

Curves = Dict[str, Dict[Optional[int], Dict[int, float]]]  # name -> seed -> {epoch: value}


def read_curves(logs: Iterable[RunLog], metric: str, names: Mapping[str, str]) -> Tuple[Curves, List[str]]:
    """Curves of one metric of all runs that were validated at least once.

    Args:
        logs: see :func:`find_runs`.
        metric: of :data:`METRICS`.
        names: name of a config, without folder and suffix -> how to call its runs, in the order wanted. Runs of other
            configs are left out.

    Returns:
        name -> seed -> {epoch: value in points}, and remarks on runs of other settings than those of the same name.
    """
    logs, curves, remarks = list(logs), {}, []
    for stem, name in names.items():
        kept, left_out = runs_that_belong_together([log for log in logs if log.stem == stem])
        remarks += left_out
        runs = {
            log.seed: {epoch: metrics[metric] for epoch, metrics in log.curve.items() if metric in metrics}
            for log in sorted(kept, key=lambda log: log.seed or 0)
        }
        runs = {seed: curve for seed, curve in runs.items() if curve}
        if runs:
            curves[name] = runs
    return curves, remarks


def write_curves(curves: Curves, path: Path, metric: str) -> None:
    """Every value as one line of a CSV file: name, seed, epoch, value."""
    rows = [
        (name, seed, epoch, value)
        for name, runs in curves.items()
        for seed, run in runs.items()
        for epoch, value in run.items()
    ]
    write_csv(path, ('name', 'seed', 'epoch', metric), rows)
