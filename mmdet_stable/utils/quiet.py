"""Libraries that print, or advise whoever cannot follow."""

import contextlib
import io
import warnings
from typing import ContextManager


def quiet() -> ContextManager[object]:
    """Meanwhile nothing is printed, as by pycocotools when it loads; loggers are heard all the same."""
    return contextlib.redirect_stdout(io.StringIO())


def ignore_meshgrid_advice() -> None:
    """From now on, torch's warning of a call of ``torch.meshgrid``, which mmdet makes, is not shown."""
    warnings.filterwarnings('ignore', 'torch.meshgrid: in an upcoming release')
