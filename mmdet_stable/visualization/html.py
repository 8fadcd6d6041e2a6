"""Pieces of a page that stands alone: no scripts, nothing to be loaded."""

from html import escape
from typing import Iterable, Sequence

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 75rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; opacity: .8; }
img { max-width: 100%; height: auto; background: white; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead { background: var(--soft); }
table.text td, table.text th { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
table.text { font-family: ui-monospace, monospace; font-size: .8rem; }
@media (min-width: 60rem) { .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; align-items: center; } }
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


def table(head: Sequence[str], rows: Iterable[Sequence[object]], text: bool = False) -> str:
    """Numbers, or long text; either scrolls on its own where the window is narrow."""
    cells = ''.join(f'<th>{escape(cell)}</th>' for cell in head)
    body = '\n'.join('<tr>' + ''.join(f'<td>{escape(str(cell))}</td>' for cell in row) + '</tr>' for row in rows)
    kind = ' class="text"' if text else ''
    return (
        f'<div class="wide"><table{kind}>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
    )
