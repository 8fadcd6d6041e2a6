"""The manifest: which config reproduces which published row."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import mmengine

from .run_log import METRICS


@dataclass(frozen=True)
class Row:
    """One row of a published table."""

    table: str  # the paper's number, or a name
    row: int
    title: str  # of the table
    name: str
    config: str  # relative to the folder of the manifest
    note: str = ''  # on the table
    baseline: Optional[str] = None  # id of the row that gains are counted from
    gain: Optional[float] = None  # where the paper gives only the gain of AP
    published: Dict[str, float] = field(default_factory=dict)  # AP, AP50, ... in points

    @property
    def id(self) -> str:
        return f'{self.table}.{self.row}'

    @property
    def stem(self) -> str:
        """Name of the config without folder and suffix, by which work dirs are recognised."""
        return Path(self.config).stem


def load_manifest(path: Path) -> List[Row]:
    """The rows of ``configs/manifest.yml``, in its order.

    Raises:
        ValueError: for keys that no row has, double ids, unknown baselines, or two configs of the same name.
    """
    rows = []
    for table in mmengine.load(path)['tables']:
        for entry in table['rows']:
            published = {name: entry.pop(name) for name in METRICS if name in entry}
            try:
                rows.append(
                    Row(
                        table=str(table['table']),
                        title=table['title'],
                        note=table.get('note', ''),
                        published=published,
                        **entry,
                    )
                )
            except TypeError as error:
                raise ValueError(f'{path}: table {table["table"]}, {entry}: {error}') from error
    ids = [row.id for row in rows]
    for row in rows:
        if ids.count(row.id) > 1:
            raise ValueError(f'{path}: two rows are called {row.id}')
        if row.baseline is not None and row.baseline not in ids:
            raise ValueError(f'{path}: row {row.id} has baseline {row.baseline!r}, which is no row')
        twins = {other.config for other in rows if other.stem == row.stem}
        if len(twins) > 1:
            raise ValueError(f'{path}: configs of one name cannot be told apart by their work dirs: {sorted(twins)}')
    return rows


def published_gain(row: Row, rows: Sequence[Row], metric: str = 'AP') -> Optional[float]:
    """How far the paper's value lies above that of the row's baseline, in points; None where it does not say."""
    if row.gain is not None:
        return row.gain if metric == 'AP' else None
    base = next((other for other in rows if other.id == row.baseline), None)
    if base is None or metric not in row.published or metric not in base.published:
        return None
    return row.published[metric] - base.published[metric]
