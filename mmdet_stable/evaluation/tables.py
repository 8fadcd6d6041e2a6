"""Numbers as CSV."""

import csv
import io
from pathlib import Path
from typing import Iterable, Sequence

from mmdet_stable.utils.files import write_whole


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; floats with four significant digits, folders as needed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(head)
    writer.writerows([f'{cell:.4g}' if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_whole(path, text.getvalue())
