"""Fonts for class names in any script: matplotlib's own font has no Chinese, Japanese or Korean characters."""

import unicodedata
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, FrozenSet, Iterator, List, Set, Tuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from .output import Output

REGULAR = 400  # weight of a font


def save(figure: Figure, output: Output, **settings: Any) -> None:
    """Save a figure, after its texts have got fonts for what their own lacks; ``settings`` as of ``savefig``."""
    texts = figure.findobj(Text)
    fonts = fallback_fonts(''.join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *fonts])
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing from', UserWarning)  # said better below
        figure.savefig(output, **settings)


@contextmanager
def sans_serif_for(text: str) -> Iterator[None]:
    """Meanwhile matplotlib's ``sans-serif`` is a font that has the characters of a text, for figures of others."""
    names = [*fallback_fonts(text), *matplotlib.rcParams['font.sans-serif']]
    with matplotlib.rc_context({'font.sans-serif': names}), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing from', UserWarning)
        yield


def fallback_fonts(text: str) -> List[str]:
    """Names of installed fonts that have the characters that matplotlib's default font lacks.

    For characters of which there is no font, warns once for each script, and says what to install.
    """
    own = _characters(findfont(FontProperties()))
    missing = frozenset(one for one in text if ord(one) not in own and not one.isspace())
    if not missing:
        return []
    names, without = _fonts_for(missing)
    for script, one in sorted({_script(one): one for one in sorted(without, reverse=True)}.items()):
        _warn_of(script, one)
    return list(names)


@cache
def _fonts_for(characters: FrozenSet[str]) -> Tuple[Tuple[str, ...], FrozenSet[str]]:
    """As few fonts as have the most of some characters between them, and the characters that none has."""
    names: List[str] = []
    missing = set(characters)
    entries = sorted(fontManager.ttflist, key=_plainness)
    while missing:
        best = max(entries, key=lambda entry: len(_covered(entry, missing)))  # of equals, the plainest
        covered = _covered(best, missing)
        if not covered:
            break
        names.append(best.name)
        missing -= covered
    return tuple(names), frozenset(missing)


def _plainness(entry: FontEntry) -> Tuple[bool, int, str]:
    return entry.style != 'normal', abs(_weight(entry) - REGULAR), entry.name


def _weight(entry: FontEntry) -> int:
    return entry.weight if isinstance(entry.weight, int) else REGULAR


def _covered(entry: FontEntry, characters: Set[str]) -> Set[str]:
    if 'lastresort' in entry.name.lower().replace(' ', ''):  # has a picture of the script for each character
        return set()
    known = _characters(entry.fname)
    return {one for one in characters if ord(one) in known}


@cache
def _characters(path: str) -> FrozenSet[int]:
    """Unicode points that a font has; none where its file is gone since matplotlib has listed it."""
    return frozenset(FT2Font(path).get_charmap()) if Path(path).is_file() else frozenset()


def _script(character: str) -> str:
    """As Unicode names its characters, e.g. ``'CJK'``, ``'HANGUL'``, ``'DEVANAGARI'``."""
    return unicodedata.name(character, 'UNNAMED').split()[0]


@cache
def _warn_of(script: str, character: str) -> None:
    warnings.warn(
        f'no font that matplotlib knows has {character!r} ({script}), so that it becomes a square in pictures. Install '
        'one, such as those of the Noto project (fonts-noto-cjk on Debian and Ubuntu for Chinese, Japanese and '
        f"Korean), and delete matplotlib's list of fonts in {matplotlib.get_cachedir()}",
        stacklevel=2,
    )
