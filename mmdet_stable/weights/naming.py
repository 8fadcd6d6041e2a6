"""Published names to ours, and back."""

import fnmatch
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, List, Mapping, Tuple

import torch
from torch import Tensor

from .errors import DamagedError, WeightsError
from .families import counts_of_ours, counts_of_published, num_classes
from .rules import Family, Rule, Translation
from .tensors import OPERATIONS

COUNTER = '.num_batches_tracked'


@dataclass
class Renamed:
    """Weights under other names, and what happened on the way."""

    weights: Dict[str, Tensor] = field(default_factory=dict)
    left_over: Dict[str, Tensor] = field(default_factory=dict)  # names that no rule knows
    left_out: List[str] = field(default_factory=list)  # entries that are no weights of the detector
    lost_rows: Dict[str, str] = field(default_factory=dict)  # name -> rows that the target does not have
    notes: List[str] = field(default_factory=list)


def to_ours(weights: Mapping[str, Tensor], family: Family) -> Renamed:
    """Published weights under our names.

    Raises:
        WeightsError: where two names of one tensor hold different values, or a part of a stacked tensor is missing.
    """
    translation = Translation(family.rules, counts_of_published(weights))
    result = Renamed()
    sources: Dict[str, List[Tuple[str, Rule, int]]] = {}
    for name, tensor in weights.items():
        found = translation.to_ours(name)
        if name in family.background_weight or any(fnmatch.fnmatchcase(name, entry) for entry in family.not_weights):
            result.left_out.append(name)
        elif found is None:
            result.left_over[name] = tensor
        else:
            ours, rule, part = found
            sources.setdefault(ours, []).append((name, rule, part))
    for ours, entries in sources.items():
        result.weights[ours] = _tensor(ours, entries, weights, result)
    _repeat_shared_heads(result)
    for name in list(result.weights):
        if name.endswith('.running_var'):
            result.weights.setdefault(name.replace('.running_var', COUNTER), torch.tensor(0))
    return result


def _tensor(ours: str, entries: List[Tuple[str, Rule, int]], weights: Mapping[str, Tensor], result: Renamed) -> Tensor:
    """The tensor that all published names of one of ours agree in."""
    name, rule, _ = entries[0]
    operation = OPERATIONS.get(rule.op or '')
    published = weights[name]
    if rule.op == 'stacked':
        parts = [weights[other] for other, _, _ in sorted(entries, key=lambda entry: entry[2])]
        if len(entries) != 3:
            raise WeightsError(f'{ours} is put together from three tensors, of which only {name} and so on are there')
        return OPERATIONS[rule.op].read(parts)
    for other, _, _ in entries[1:]:
        if not torch.equal(weights[other], weights[name]):
            raise DamagedError(
                f'{name} and {other} are two names of one tensor, but hold different values; the file is damaged, or '
                'of a detector that shares less than the published ones'
            )
    if operation is None:
        return weights[name]
    if rule.classes in weights and len(published) > len(weights[rule.classes]) + 1:
        number = len(weights[rule.classes])
        result.notes.append(f'without rows {number} to {len(published) - 1} of {name}, as there are {number} classes')
        published = published[: number + 1]
    tensor = operation.read([published])
    if operation.rows and len(tensor) < len(published) and len(published) > 90:
        result.lost_rows[name] = operation.rows
    return tensor


def _repeat_shared_heads(result: Renamed) -> None:
    """Heads that all layers share may be in a file once, under the first layer's name."""
    layers = counts_of_ours(result.weights).layers
    for branches in ('cls_branches', 'reg_branches'):
        first = {name: tensor for name, tensor in result.weights.items() if name.startswith(f'bbox_head.{branches}.0.')}
        others = [name for name in result.weights if name.startswith(f'bbox_head.{branches}.')]
        if first and len(others) == len(first) and layers > 1:
            for layer in range(1, layers):
                result.weights.update({name.replace('.0.', f'.{layer}.', 1): tensor for name, tensor in first.items()})
            result.notes.append(f'the {branches} of all {layers} layers are those of the first, the only ones there')


def to_published(weights: Mapping[str, Tensor], family: Family, facts: FrozenSet[str]) -> Renamed:
    """Our weights under all names that the publisher's own files have.

    Args:
        weights: of one of our models.
        family: whose names to write.
        facts: see :func:`mmdet_stable.weights.families.facts_of`.
    """
    counts = counts_of_ours(weights)
    translation = Translation(family.rules, counts)
    result = Renamed()
    for name, tensor in weights.items():
        if name.endswith(COUNTER):
            result.left_out.append(name)
            continue
        found = translation.to_published(name, facts)
        if not found:
            result.left_over[name] = tensor
        for names, rule in found:
            operation = OPERATIONS.get(rule.op or '')
            parts = operation.write(tensor, len(names)) if operation else [tensor]
            result.weights.update(zip(names, parts))
    _zero_neck_biases(result, weights, translation, facts)
    for name, background in family.background_weight.items():
        result.weights[name] = torch.tensor([1.0] * num_classes(weights, family.kind) + [background])
    return result


def _zero_neck_biases(
    result: Renamed, weights: Mapping[str, Tensor], translation: Translation, facts: FrozenSet[str]
) -> None:
    """Published necks have biases before their norms; of ours without, they are zero."""
    added = []
    for name, tensor in weights.items():
        bias = name.replace('.weight', '.bias')
        if name.startswith('neck.') and name.endswith('.conv.weight') and bias not in weights:
            for (published,), _ in translation.to_published(bias, facts):
                result.weights[published] = tensor.new_zeros(len(tensor))
                added.append(published)
    if added:
        result.notes.append(f'biases of zero for the convolutions of the neck, which has none: {", ".join(added)}')
