"""Settings that a component does not take, and components that nobody knows: named by their key of the config.

Python's own error says the name alone, and of the class the one that lies deepest: ``DetectionTransformer.__init__()
got an unexpected keyword argument 'num_querys'``.
"""

import inspect
import re
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from mmdet import registry
from mmengine.config import Config
from mmengine.registry import Registry

UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
UNREGISTERED = re.compile(r'(\S+) is not in the \S+ registry')
SIMILAR = 0.6  # difflib's ratio from which a name is suggested


class UnknownSettingError(ValueError):
    """A setting that the component in its place does not take, or a component that is not registered."""


@contextmanager
def settings_named(cfg: Config) -> Iterator[None]:
    """While components are built from a config, name the settings that they do not take, and unknown components.

    Raises:
        UnknownSettingError: in place of Python's ``TypeError`` and mmengine's ``KeyError``, where the config has what
            they speak of.
    """
    try:
        yield
    except (TypeError, KeyError) as error:
        said = str(error.args[0]) if error.args else ''
        argument, component = UNEXPECTED.search(said), UNREGISTERED.match(said)
        problems = unknown_settings(cfg, argument[1]) if argument else []
        problems += unknown_components(cfg, component[1]) if component else []
        if not problems:
            raise
        raise UnknownSettingError('\n'.join(problems)) from error


def unknown_components(cfg: Config, name: str) -> List[str]:
    """Where a config asks for a component of this name, in words."""
    known = [entry for one in vars(registry).values() if isinstance(one, Registry) for entry in one.module_dict]
    near = get_close_matches(name, known, 1, SIMILAR)
    hint = f'did you mean {near[0]}? ' if near else ''
    remedy = 'Correct it, or name the module that registers it in custom_imports'
    holders = _holders(cfg.to_dict(), 'type')
    return [
        f'{key}={name}: no such component is registered; {hint}{remedy}'
        for key, node in holders
        if node['type'] == name
    ]


def unknown_settings(cfg: Config, name: str) -> List[str]:
    """Where a config gives a setting of this name to a component that does not take it, in words."""
    problems, doubtful = [], []
    for key, node in _holders(cfg.to_dict(), name):
        kind = _class_of(node.get('type'))
        if kind is None:  # passed on by what it is part of
            doubtful.append(f'{key}={node[name]!r}: no component takes it there; correct it, or leave it out')
            continue
        known = arguments_of(kind)
        if name not in known:
            near = get_close_matches(name, known, 1, SIMILAR)
            hint = f'did you mean {near[0]}?' if near else f'known are {", ".join(sorted(known))}.'
            problems.append(
                f'{key}={node[name]!r}: {kind.__name__} does not take it; {hint} Correct it, or leave it out'
            )
    return problems or doubtful


def arguments_of(kind: type) -> List[str]:
    """Names of what a class can be built with, also by its parents, as far as it hands arguments on to them."""
    names: List[str] = []
    for base in inspect.getmro(kind):
        if '__init__' not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)['__init__']).parameters.values())[1:]
        names += [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return list(dict.fromkeys(names))


def _class_of(kind: Any) -> Optional[type]:
    """The class of a ``type``, whatever registry of mmdet it is in."""
    if isinstance(kind, str):
        registries = (one for one in vars(registry).values() if isinstance(one, Registry))
        kind = next((found for found in (one.get(kind) for one in registries) if found is not None), None)
    return kind if inspect.isclass(kind) else None


def _holders(node: Any, name: str, prefix: str = '') -> Iterator[Tuple[str, Mapping[str, Any]]]:
    """The dicts of a config that have a key of this name, each with the dotted key of its value."""
    if isinstance(node, Mapping) and name in node:
        yield f'{prefix}{name}', node
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _holders(value, name, f'{prefix}{key}.')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _holders(value, name, f'{prefix}{index}.')
