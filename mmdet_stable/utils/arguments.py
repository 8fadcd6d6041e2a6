"""Types of command line arguments that say which values they take."""

import argparse
import math
from typing import Callable


def at_least(least: int) -> Callable[[str], int]:
    """Takes whole numbers from ``least`` on."""

    def parse(text: str) -> int:
        if not text.lstrip('+-').isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f'{text} is no whole number from {least} on')
        return int(text)

    return parse


def fraction(text: str) -> float:
    """Takes numbers from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is no number from 0 to 1')
    return value


def positive(text: str) -> float:
    """Takes numbers above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is no number above 0')
    return value


def _number(text: str) -> float:
    """NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
