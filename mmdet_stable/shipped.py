"""Where the configs lie that come with this package: in a checkout, or inside an installed wheel."""

import difflib
from pathlib import Path
from typing import List

PACKAGE = Path(__file__).resolve().parent


def config(name: str) -> str:
    """The path of a config, for ``Config.fromfile`` and ``DetInferencer``.

    Args:
        name: its file's name, as ``'stable_dino_r50_12e'``, with or without folders before it and ``.py`` behind.

    Raises:
        ValueError: if there is no such config, naming similar ones.
    """
    stem = name[: -len('.py')] if name.endswith('.py') else name
    paths = shipped_configs()
    names = {path: path.relative_to(config_folder()).with_suffix('').as_posix() for path in paths}
    found = [path for path in paths if f'/{names[path]}'.endswith(f'/{stem}')]
    if len(found) != 1:
        known = [*names.values(), *(path.stem for path in paths)]
        similar = difflib.get_close_matches(stem, known, n=3) if not found else [names[path] for path in found]
        hint = f'did you mean {" or ".join(dict.fromkeys(similar))}? ' if similar else ''
        raise ValueError(f'{name!r} names no config; {hint}`python -m mmdet_stable configs` lists all')
    return str(found[0])


def shipped_configs() -> List[Path]:
    """All configs, without the fragments in folders called ``_base_``."""
    return sorted(path for path in config_folder().rglob('*.py') if '_base_' not in path.parts)


def config_folder() -> Path:
    """The folder of the configs.

    Raises:
        FileNotFoundError: if they were not installed.
    """
    for folder in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs'):
        if (folder / 'manifest.yml').is_file():
            return folder
    raise FileNotFoundError(f'{PACKAGE} came without its configs; install the wheel, or by pip install -e a checkout')
