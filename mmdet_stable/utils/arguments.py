"""Types of command line arguments that say which values they take."""

import argparse
import math
from typing import Any, Callable, Optional, Sequence, Union

from mmengine.config import DictAction


class SettingsAction(DictAction):
    """mmengine's, for ``KEY=VALUE``; what is not written like that is wrong usage."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Union[str, Sequence[Any], None],
        option_string: Optional[str] = None,
    ) -> None:
        for text in [values] if isinstance(values, str) else values or ():
            if '=' not in str(text):
                raise argparse.ArgumentError(self, f'{text} is no KEY=VALUE; other arguments go before {option_string}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:  # mmengine's, for brackets that are not closed
            raise argparse.ArgumentError(self, str(error)) from error


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


def below_one(text: str) -> float:
    """Takes numbers from 0 on that are below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f'{text} is no number from 0 on and below 1')
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
