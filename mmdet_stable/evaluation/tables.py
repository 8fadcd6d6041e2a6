"""Numbers as CSV."""

import csv
from pathlib import Path
from typing import Iterable, Sequence


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; floats with four significant digits, folders as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(head)
        writer.writerows([f'{cell:.4g}' if isinstance(cell, float) else cell for cell in row] for row in rows)
