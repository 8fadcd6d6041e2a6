"""The rules by which names of published weights become ours, and ours theirs: read from ``rules/*.yml``."""

import itertools
import re
from functools import cache, partial
from pathlib import Path
from typing import Dict, FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import yaml

FOLDER = Path(__file__).parent / 'rules'
BRACES = re.compile(r'\{([^}]*)\}')


class Rule(NamedTuple):
    """One way to write the names of a group of weights."""

    published: str  # with placeholders in braces
    ours: str
    op: Optional[str] = None  # of OPERATIONS, what happens to the tensor
    second: bool = False  # another name of a tensor that has one already
    when: str = ''  # writing published names: only where this holds, e.g. 'with_box_refine', or 'not dc5'
    classes: str = ''  # name of the class head: a label embedding may have more rows, which are never read


class Family(NamedTuple):
    """The names that one publisher gives to one kind of detector."""

    name: str
    publishers: Tuple[str, ...]
    kind: str
    has: Tuple[str, ...]  # names by which it is recognised
    lacks: Tuple[str, ...]
    more_queries: str  # this embedding has more rows than there are one-to-many queries
    not_weights: Tuple[str, ...]  # entries that are no weights
    background_weight: Mapping[str, float]  # entries with the weight of each class in the loss: 1, and this one last
    settings: Mapping  # what a config must say for equal outputs
    rules: Tuple[Rule, ...]


class Counts(NamedTuple):
    """Numbers that rules depend on."""

    layers: int  # of the decoder
    scales: int  # 1x1 convolutions of the neck
    extra: int  # 3x3 convolutions behind them


class Unsupported(NamedTuple):
    """A published kind of detector that no model here can hold."""

    name: str
    has: Tuple[str, ...]
    lacks: Tuple[str, ...]
    why: str


@cache
def load_rules() -> Tuple[Dict[str, Family], Tuple[Unsupported, ...]]:
    """All families by name, and what is known but not supported."""
    backbones = _load('backbones')
    families: Dict[str, Family] = {}
    unsupported: List[Unsupported] = []
    for publisher in ('official', 'detrex', 'huggingface', 'detectron2', 'maskdino'):
        data = _load(publisher)
        for name, entry in data['families'].items():
            families[name] = _family(name, publisher, entry, data, backbones)
        for entry in data.get('unsupported', ()):
            unsupported.append(
                Unsupported(entry['name'], tuple(entry['has']), tuple(entry.get('lacks', ())), entry['why'])
            )
    return families, tuple(unsupported)


def _load(name: str) -> dict:
    return yaml.safe_load((FOLDER / f'{name}.yml').read_text(encoding='utf-8'))


def _family(name: str, publisher: str, entry: dict, data: dict, backbones: dict) -> Family:
    rules = list(_rules(entry.get('rules', {})))
    while 'like' in entry:
        parent = data['families'][entry['like']]
        rules += _rules(parent.get('rules', {}))
        entry = {**parent, **{key: value for key, value in entry.items() if key not in ('like', 'rules')}}
    for group in entry.get('use', ()):
        rules += _group(group, data['groups'])
    for group, at, *when in entry.get('backbones', ()):
        rules += _rules(backbones[group], at, when[0] if when else '')
    return Family(
        name,
        tuple(entry.get('publishers', [publisher])),
        entry['kind'],
        tuple(entry['has']),
        tuple(entry.get('lacks', ())),
        entry.get('more_queries', ''),
        tuple(entry.get('not_weights', ())),
        entry.get('background_weight', {}),
        entry.get('settings', {}),
        tuple(rules),
    )


def _group(name: str, groups: Mapping[str, dict]) -> Iterator[Rule]:
    group = dict(groups[name])
    inherited = group.pop('use', ())
    yield from _rules(group)
    for parent in inherited:
        yield from _group(parent, groups)


def _rules(entries: Mapping, at: str = '', when: str = '') -> Iterator[Rule]:
    for published, ours in entries.items():
        entry = dict(ours) if isinstance(ours, Mapping) else dict(to=ours)
        entry.setdefault('when', when)
        yield Rule(published.replace('{at}', at), entry.pop('to'), **entry)


@cache
def placeholders() -> Dict[str, str]:
    """Regular expressions by placeholder."""
    return _load('placeholders')


class Translation:
    """The rules of a family for a model of given numbers of layers and scales, ready to use in both directions."""

    def __init__(self, rules: Iterable[Rule], counts: Counts) -> None:
        self.rules = [filled for rule in rules for filled in _filled(rule, counts)]
        self._published = [re.compile(_pattern(rule.published)) for rule in self.rules]
        self._ours = [re.compile(_pattern(rule.ours)) for rule in self.rules]

    def to_ours(self, name: str) -> Optional[Tuple[str, Rule, int]]:
        """Our name for a published one, the rule, and which part of a stacked tensor it is; None if no rule fits."""
        for rule, pattern in zip(self.rules, self._published):
            match = pattern.fullmatch(name)
            if match:
                (ours,) = _written(rule.ours, match.groupdict())
                return ours, rule, _part(rule, match.groupdict())
        return None

    def to_published(self, name: str, facts: FrozenSet[str]) -> List[Tuple[List[str], Rule]]:
        """All published names of one of ours, for a detector of which ``facts`` hold, e.g. ``{'as_two_stage'}``.

        Each entry has several names where the tensor is stacked from parts.
        """
        found: List[Tuple[List[str], Rule]] = []
        for rule, pattern in zip(self.rules, self._ours):
            first = not rule.second and any(not other.second for _, other in found)
            if first or not _holds(rule.when, facts):
                continue
            match = pattern.fullmatch(name)
            if match:
                names = list(_written(rule.published, match.groupdict(), every=rule.op == 'stacked'))
                if all(names != others for others, _ in found):
                    found.append((names, rule))
        return found if any(not rule.second for _, rule in found) else []


def _holds(condition: str, facts: FrozenSet[str]) -> bool:
    if condition.startswith('not '):
        return condition[4:] not in facts
    return not condition or condition in facts


def _filled(rule: Rule, counts: Counts) -> Iterator[Rule]:
    """The rule once for each layer or scale that it counts."""
    used = set(BRACES.findall(rule.published))
    if 'scale' in used:
        values = [dict(scale=i) for i in range(counts.scales)]
    elif 'scales + extra' in used:
        values = [{'scales + extra': counts.scales + i, 'extra': i} for i in range(counts.extra)]
    elif 'layer' in used:
        values = [dict(layer=i) for i in range(counts.layers)]
    else:
        values = [{}]
    for value in values:
        value = dict(value, layers=counts.layers)

        def fill(match: re.Match, value: dict = value) -> str:
            return str(value[match[1]]) if match[1] in value else match[0]

        yield rule._replace(published=BRACES.sub(fill, rule.published), ours=BRACES.sub(fill, rule.ours))


def _pattern(template: str) -> str:
    parts = BRACES.split(template)
    names = parts[1::2]
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [f'(?P<{name}>{placeholders()[name]})' for name in names]
    return ''.join(parts)


def _alternatives(name: str) -> List[str]:
    return placeholders()[name].replace('\\', '').split('|')


def _written(template: str, values: Mapping[str, str], every: bool = False) -> Iterator[str]:
    """The template with its placeholders replaced; one that has no value takes its first form, or ``every`` one."""
    free = [name for name in BRACES.findall(template) if name not in values]
    forms = [_alternatives(name) if every else _alternatives(name)[:1] for name in free]
    for chosen in itertools.product(*forms):
        known = {**values, **dict(zip(free, chosen))}
        yield BRACES.sub(partial(_named, known), template)


def _named(values: Mapping[str, str], match: 're.Match[str]') -> str:
    return values[match[1]]


def _part(rule: Rule, values: Mapping[str, str]) -> int:
    if rule.op != 'stacked':
        return 0
    (name,) = set(BRACES.findall(rule.published)) - set(BRACES.findall(rule.ours))
    return _alternatives(name).index(values[name])
