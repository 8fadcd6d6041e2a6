"""Tells families of published weights apart, by names and shapes alone."""

import re
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional

from torch import Tensor

from .errors import WeightsError
from .kinds import load_kinds
from .rules import Counts, Family, load_rules

DECODER_LAYER = re.compile(r'(?:^|\.)(?:decoder|predictor)\.layers\.(\d+)\.')
NECK_OF_PUBLISHED = re.compile(r'(?:^|\.)input_proj\.(\d+)\.0\.weight')
NECK_OF_OURS = re.compile(r'neck\.(convs|extra_convs)\.(\d+)\.conv\.weight')
ONE_TO_MANY = 1500  # queries of every published H-DETR, where neither file nor config says another number


def one_to_many_queries(args: Mapping[str, Any], kept: Mapping[str, Any]) -> Optional[int]:
    """How many one-to-many queries a file says that its detector has; None where it does not say it.

    Args:
        args: command line of its training.
        kept: model of the config that it keeps.
    """
    if kept:
        return (kept.get('one_to_many') or {}).get('num_queries', 0)
    number = args.get('num_queries_one2many')
    return number if isinstance(number, int) else None


def recognised(weights: Mapping[str, Tensor], source: str, one_to_many: Optional[int] = None) -> Family:
    """The family of weights, which are not in our names.

    Args:
        weights: by published names.
        source: of them, for errors.
        one_to_many: see :func:`one_to_many_queries`.

    Raises:
        WeightsError: for names of no family, or of one that no model here can hold.
    """
    families, unsupported = load_rules()
    for entry in unsupported:
        if _fits(weights, entry):
            raise WeightsError(f'{source} holds weights of {entry.name}, which cannot be converted: {entry.why}')
    found = [family for family in families.values() if _fits(weights, family)]
    many = [family for family in found if family.more_queries]
    if many:
        (family,) = many
        is_hybrid = _is_hybrid(weights.get(family.more_queries), one_to_many)
        found = [other for other in found if (other is family) == is_hybrid]
    if len(found) != 1:
        raise WeightsError(
            f'{source} holds {described(weights)}, names of {"several families" if found else "no family"} known here'
            f'{nearest(weights)}. Known are {", ".join([*families, *load_kinds()])}'
        )
    return found[0]


def in_our_names(weights: Mapping[str, Tensor], one_to_many: Optional[int] = None) -> Optional[str]:
    """The kind of detector that weights in our names, or mmdet's, belong to; None for other names. Arguments as in
    :func:`recognised`."""
    found = [name for name, kind in load_kinds().items() if _fits(weights, kind)]
    if 'h_deformable_detr' in found:
        is_hybrid = _is_hybrid(weights.get('query_embedding.weight'), one_to_many)
        found.remove('deformable_detr' if is_hybrid else 'h_deformable_detr')
    return found[0] if len(found) == 1 else None


def _is_hybrid(queries: Optional[Tensor], one_to_many: Optional[int]) -> bool:
    """Whether an embedding of queries (Q, D) holds one-to-many queries, too."""
    if queries is None:
        return False
    return len(queries) > ONE_TO_MANY if one_to_many is None else one_to_many > 0


def _fits(weights: Mapping[str, Tensor], mark: Any) -> bool:
    return all(_any(weights, name) for name in mark.has) and not any(_any(weights, name) for name in mark.lacks)


def _any(weights: Mapping[str, Tensor], name: str) -> bool:
    """Whether a name is there, or one that begins so where it ends in a dot."""
    return any(other.startswith(name) for other in weights) if name.endswith('.') else name in weights


def family_for(publisher: str, kind: str) -> Family:
    """The family in whose names a publisher writes a kind of detector.

    Raises:
        WeightsError: where there is none.
    """
    families, _ = load_rules()
    for family in families.values():
        if publisher in family.publishers and family.kind == kind:
            return family
    known = sorted({family.kind for family in families.values() if publisher in family.publishers})
    raise WeightsError(
        f'{publisher} has no {kind}; of what is known here, it has {", ".join(known)}. Choose another --to, or convert '
        'the detector first'
    )


def counts_of_published(weights: Mapping[str, Tensor]) -> Counts:
    """Numbers of layers and scales, from published names and the kernels of ``input_proj``."""
    matches = {name: NECK_OF_PUBLISHED.search(name) for name in weights}
    kernels = {int(match[1]): weights[name].shape[-1] for name, match in matches.items() if match}
    scales = sum(kernel == 1 for kernel in kernels.values())
    return Counts(_layers(weights), scales, len(kernels) - scales)


def counts_of_ours(names: Iterable[str]) -> Counts:
    """Numbers of layers and scales, from our names."""
    names = list(names)
    convs = [match[1] for match in map(NECK_OF_OURS.fullmatch, names) if match]
    return Counts(_layers(names), convs.count('convs'), convs.count('extra_convs'))


def num_classes(ours: Mapping[str, Tensor], kind: str) -> int:
    """Classes that a detector of our names knows, without background."""
    if 'bbox_head.predictor.cls.weight' in ours:  # MaskDINO, which may score background, too
        labels = ours.get('dn_query_generator.label_embedding.weight', ours['bbox_head.predictor.cls.weight'])
        return len(labels)
    shared = 'bbox_head.fc_cls.weight'
    return len(ours[shared if shared in ours else 'bbox_head.cls_branches.0.weight']) - (kind == 'detr')


def _layers(names: Iterable[str]) -> int:
    return max((int(match[1]) + 1 for match in map(DECODER_LAYER.search, names) if match), default=0)


def facts_of(ours: Mapping[str, Tensor], kind: str, dc5: bool = False) -> FrozenSet[str]:
    """What decides which second names a publisher's file has.

    Args:
        ours: weights in our names.
        kind: of detector.
        dc5: whether the last stage of its backbone is dilated, which weights do not show.
    """
    counts = counts_of_ours(ours)
    facts = {'dc5'} if dc5 else set()
    if f'bbox_head.cls_branches.{counts.layers}.weight' in ours:
        facts |= {'as_two_stage', 'with_box_refine'}
    elif kind != 'deformable_detr' or not shares_heads(ours):
        facts.add('with_box_refine')
    return frozenset(facts)


def shares_heads(ours: Mapping[str, Tensor]) -> bool:
    """Whether all decoder layers have the same class and box heads, as those of a detector that refines no boxes."""
    heads: Dict[str, List[Tensor]] = {}
    for name, value in ours.items():
        match = re.fullmatch(r'bbox_head\.(\w+_branches)\.\d+\.(.+)', name)
        if match:
            heads.setdefault(f'{match[1]} {match[2]}', []).append(value)
    return all(value.equal(values[0]) for values in heads.values() for value in values)


def described(weights: Mapping[str, Tensor]) -> str:
    """How many weights, how large, and the first names."""
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    names = ', '.join(list(weights)[:3])
    return f'{len(weights)} tensors ({size / 2**20:.1f} MB), as {names}'


def nearest(weights: Mapping[str, Tensor]) -> str:
    """Which family shares most of its marks with the weights, for an error message."""
    families, _ = load_rules()
    marks: Dict[str, List[str]] = {
        name: [mark for mark in family.has if not _any(weights, mark)] for name, family in families.items()
    }
    name = min(marks, key=lambda name: (len(marks[name]) / len(families[name].has), len(marks[name])))
    missing = marks[name]
    if not missing or len(missing) == len(families[name].has):
        return ''
    return f' (nearest is {name}, of which {", ".join(missing)} is missing)'
