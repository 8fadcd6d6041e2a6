"""Reading the config that mmengine saves beside its checkpoints, without running it."""

import ast
from pathlib import Path
from typing import Tuple, Union

from mmengine.config import Config


def read_saved_config(path: Path) -> Config:
    """The values of a config that is a list of assignments, as mmengine writes it: numbers, texts, lists and dicts.

    A config is a Python file, and mmengine runs it to read it. Files of others should not be run only to be looked at.

    Raises:
        ValueError: naming file and line, if the file holds anything else than values.
    """
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'))
        return Config(dict(_assignment(node, path) for node in tree.body), filename=str(path))
    except (SyntaxError, UnicodeDecodeError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f'{path} is no config: {error!r}') from error


def _assignment(node: ast.stmt, path: Path) -> Tuple[str, object]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id, _value(node.value, path)
    raise _no_value(path, node)


def _value(node: ast.expr, path: Path) -> object:
    """What an expression of mmengine's saved configs stands for."""
    if isinstance(node, (ast.List, ast.Tuple)):
        items = (_value(item, path) for item in node.elts)
        return list(items) if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict):
        entries = [(key, value) for key, value in zip(node.keys, node.values) if key is not None]  # None before **
        if len(entries) == len(node.keys):
            return {_value(key, path): _value(value, path) for key, value in entries}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        values = [_value(argument, path) for argument in node.args]
        dicts = [value for value in values if isinstance(value, dict)]
        named = {keyword.arg: _value(keyword.value, path) for keyword in node.keywords}
        if len(dicts) == len(values) <= 1 and None not in named:
            return {**(dicts[0] if dicts else {}), **named}
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _no_value(path, node) from None


def _no_value(path: Path, node: Union[ast.stmt, ast.expr]) -> ValueError:
    return ValueError(
        f'{path}, line {node.lineno}: not a plain value, as in the configs that mmengine saves. To read it would be to '
        'run it, which is not done'
    )
