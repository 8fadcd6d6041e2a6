"""Libraries that print."""

import contextlib
import io
from typing import ContextManager


def quiet() -> ContextManager[object]:
    """Meanwhile nothing is printed, as by pycocotools when it loads; loggers are heard all the same."""
    return contextlib.redirect_stdout(io.StringIO())
