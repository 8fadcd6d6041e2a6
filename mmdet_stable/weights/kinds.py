"""Kinds of detectors that this package and mmdet build, read from ``rules/kinds.yml``."""

from functools import cache
from typing import Any, Dict, Mapping, NamedTuple, Tuple

import yaml

from .rules import FOLDER


class Kind(NamedTuple):
    """A kind of detector, in our names."""

    name: str
    has: Tuple[str, ...]  # names by which it is recognised; one that ends in a dot stands for all that begin so
    lacks: Tuple[str, ...]
    configs: Mapping[str, Mapping[int, str]]  # by backbone and number of levels
    eps: Tuple[str, ...] = ()  # parts of the model whose inverse sigmoid has its eps as a setting
    default_eps: float = 0.0  # what mmdet's classes, and ours, have anyway; 0 where parts differ
    in_mmdet: bool = False  # whether mmdet has this detector, under the same names
    by_classes: Mapping[
        int, Mapping[str, Mapping[int, str]]
    ] = {}  # configs, where the number of classes tells the task
    unseen: Tuple[str, ...] = ()  # settings of the model that its weights may not show


@cache
def load_kinds() -> Dict[str, Kind]:
    """All kinds by name."""
    data: Dict[str, Dict[str, Any]] = yaml.safe_load((FOLDER / 'kinds.yml').read_text(encoding='utf-8'))
    for entry in data.values():
        entry.update({key: tuple(entry[key]) for key in ('has', 'lacks', 'eps', 'unseen') if key in entry})
    return {name: Kind(name, **entry) for name, entry in data.items()}
