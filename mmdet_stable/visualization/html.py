"""Pieces of a page that stands alone: no scripts, nothing to be loaded."""

from html import escape
from typing import Iterable, Sequence, Tuple

MANY_COLUMNS = {False: 4, True: 2}  # of numbers and of text: more do not fit on a phone
LONG_TEXT = 200

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 90rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; opacity: .8; }
img { display: block; width: 100%; height: auto; background: white; }
.pair img { max-height: 30rem; object-fit: contain; object-position: left; }
/* A table scrolls on its own. The shadow at an edge says that there is more; at the end, a patch that scrolls along
   covers it. */
.wide { overflow-x: auto; width: fit-content; max-width: 100%; background:
  linear-gradient(to right, Canvas 1rem, transparent) left / 2.5rem 100% no-repeat local,
  linear-gradient(to left, Canvas 1rem, transparent) right / 2.5rem 100% no-repeat local,
  linear-gradient(to right, #0009, transparent) left / .9rem 100% no-repeat scroll,
  linear-gradient(to left, #0009, transparent) right / .9rem 100% no-repeat scroll; }
.hint { display: none; font-size: .85rem; opacity: .8; margin: .25rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead { background: var(--soft); }
table.text td, table.text th { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
table.text { font-family: ui-monospace, monospace; font-size: .8rem; }
td > div { max-height: 6rem; overflow-y: auto; }
summary { cursor: pointer; }
.examples { display: grid; gap: 2rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, calc(var(--panels) * 19rem)), 1fr)); }
.panels { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
.panels figure { margin: 0; }
@media (max-width: 45rem) { .hint { display: block; } }
@media (min-width: 60rem) { .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; } }
"""


def page(title: str, sections: Iterable[str]) -> str:
    """A whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n'
        + '\n'.join(sections)
        + '\n</body>\n</html>\n'
    )


def section(title: str, *parts: str) -> str:
    return f'<section>\n<h2>{escape(title)}</h2>\n' + '\n'.join(parts) + '\n</section>'


def paragraph(text: str) -> str:
    return f'<p>{escape(text)}</p>'


def picture(address: str, caption: str) -> str:
    """A picture by its ``data:`` address."""
    return f'<figure><img src="{address}" alt="{escape(caption)}">\n<figcaption>{escape(caption)}</figcaption></figure>'


def pair(left: str, right: str) -> str:
    """Two parts beside each other where the window is wide, else one below the other."""
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>'


def fold(summary: str, content: str) -> str:
    """A line that opens what it stands for."""
    return f'<details><summary>{escape(summary)}</summary>\n{content}\n</details>'


def examples(entries: Sequence[Tuple[str, Sequence[str]]]) -> str:
    """Titles, each with pictures that stand beside each other where the window is wide enough; all have as many."""
    panels = max((len(pictures) for _, pictures in entries), default=1)
    blocks = (
        f'<div><h3>{escape(title)}</h3>\n<div class="panels">' + '\n'.join(pictures) + '</div></div>'
        for title, pictures in entries
    )
    return f'<div class="examples" style="--panels: {panels}">\n' + '\n'.join(blocks) + '\n</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]], text: bool = False) -> str:
    """Numbers, or long text; either scrolls on its own where the window is narrow, and says so where it is likely."""
    cells = ''.join(f'<th>{escape(cell)}</th>' for cell in head)
    body = '\n'.join('<tr>' + ''.join(map(_cell, row)) + '</tr>' for row in rows)
    kind = ' class="text"' if text else ''
    hint = '<p class="hint">Scroll the table sideways for all columns \N{RIGHTWARDS ARROW}</p>\n'
    return (
        f'{hint if len(head) > MANY_COLUMNS[text] else ""}<div class="wide" tabindex="0"><table{kind}>\n'
        f'<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
    )


def _cell(value: object) -> str:
    """Text of many lines scrolls within its cell."""
    text = escape(str(value))
    return f'<td><div>{text}</div></td>' if len(text) > LONG_TEXT else f'<td>{text}</td>'
