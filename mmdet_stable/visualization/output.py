"""Where pictures go."""

import base64
import io
from pathlib import Path
from typing import Callable, Union

Output = Union[Path, io.BytesIO]  # what matplotlib writes to: a file, whose suffix decides the format, or memory (PNG)


def inlined(draw: Callable[[io.BytesIO], None]) -> str:
    """A picture as a ``data:`` address, for pages that stand alone."""
    memory = io.BytesIO()
    draw(memory)
    content = memory.getvalue()
    kind = 'png' if content.startswith(b'\x89PNG') else 'jpeg'
    return f'data:image/{kind};base64,' + base64.b64encode(content).decode()
