"""Whole files: published weights become a checkpoint and a config of this package, and ours become published ones."""

import copy
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from mmdet_stable.utils.files import write_whole

from . import families, naming
from .configs import ConfigWriter, kept_model, kind_of_config, load_config, named_config, text_of
from .containers import Published, read, safetensors
from .errors import WeightsError
from .kinds import load_kinds
from .report import Report
from .rules import Family
from .sizes import Needed

PUBLISHERS = ('official', 'detrex', 'huggingface', 'mmdet')
# Parts that a detector may start afresh, because the one that the weights come from does not have them.
FRESH = {
    'encoder.fusion.': 'the memory fusion',
    'neck.encoder.fusion.': 'the memory fusion',
    'dn_query_generator.label_embedding.': 'the label embedding of denoising queries',
    'box_position.': 'the positions of denoising queries',
}


@dataclass
class Converted:
    """Weights in the names of this package, with a config that fits them."""

    weights: Dict[str, Tensor]
    cfg: Optional[Config]
    report: Report
    meta: Dict[str, Any] = field(default_factory=dict)


def convert(
    source: Path,
    out: Path,
    config: Optional[str] = None,
    to: Optional[str] = None,
    averaged: bool = False,
    dc5: Optional[bool] = None,
    settings: Optional[Mapping[str, Any]] = None,
) -> Report:
    """Convert a file of weights; nothing is written where anything is wrong.

    Args:
        source: published weights, or weights in our names.
        out: the file to write, ``.pth``; where it is to be one of ours, a config of the same name goes beside it.
        config: to start from, e.g. ``'stable_dino_r50_12e.py'`` for a DINO that goes on as Stable-DINO; None for the
            one that fits the weights.
        to: None for this package, or whose names to write: ``'official'``, ``'detrex'``, ``'huggingface'``, whose
            files end in ``.bin`` or ``.safetensors``, or ``'mmdet'``.
        averaged: take the moving average of the weights.
        dc5: whether the last stage of the backbone is dilated, where the file does not say it.
        settings: of the written config, e.g. ``{'model.positional_encoding.temperature': 10}``, which come last.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: for a file or a config that does not fit; says what was found and what was expected.
    """
    published = read(Path(source), averaged)
    out = Path(out)
    if to is None:
        return save(to_ours(published, config, dc5, settings), out)
    if to not in PUBLISHERS:
        raise WeightsError(f'--to {to}: known are {", ".join(PUBLISHERS)}')
    weights, report = to_published(published, to, config, dc5)
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    if out.suffix == '.safetensors':
        write_whole(out, safetensors(weights))
    elif to == 'huggingface':
        _write(out, weights)
    else:
        key, meta = ('state_dict', {'meta': _plain_meta(published.meta)}) if to == 'mmdet' else ('model', {})
        _write(out, {key: weights, **meta})
    report.written.append(out)
    return report


def to_ours(
    published: Published,
    config: Optional[str] = None,
    dc5: Optional[bool] = None,
    settings: Optional[Mapping[str, Any]] = None,
) -> Converted:
    """Weights under our names, and a config that fits them; see :func:`convert`."""
    source = str(published.path)
    _check_dimensions(published)
    kept = kept_model(published.meta)
    one_to_many = families.one_to_many_queries(published.args, kept)
    kind = families.in_our_names(published.weights, one_to_many)
    family = None if kind else families.recognised(published.weights, source, one_to_many)
    report = Report(published.path, family.name if family else f'{kind} in the names of mmdet', published.taken)
    report.others = published.others
    if family is None:
        weights, lost = dict(published.weights), naming.Renamed()
    else:
        kind = family.kind
        lost = naming.to_ours(published.weights, family)
        weights = lost.weights
    report.left_out, report.lost_rows, report.notes = lost.left_out, lost.lost_rows, lost.notes
    report.left_over = list(lost.left_over)
    if report.left_over:
        raise WeightsError(
            f'{source} looks like {report.family}, but has {len(report.left_over)} weights that it does not have: '
            f'{_some(report.left_over)}; nothing was written'
        )
    if kind == 'backbone':
        report.target = "a backbone; use it by backbone.init_cfg=dict(type='Pretrained', prefix='backbone.', ...)"
        report.num_weights = len(weights)
        return Converted(weights, None, report)
    if kind not in load_kinds():
        raise WeightsError(f'{source} holds a {kind}, of which this package has no model yet; nothing was written')
    writer = _fitted_config(weights, kind, family, published, config, dc5, settings, report)
    writer.override(settings or {})
    weights = _checked(weights, writer, report)
    report.settings, report.num_weights = writer.settings, len(weights)
    meta = dict(_plain_meta(published.meta), converted_from=report.family)
    return Converted(weights, writer.cfg, report, meta)


def _check_dimensions(published: Published) -> None:
    """
    Raises:
        WeightsError: where a single number stands in the place of a tensor.
    """
    numbers = [
        name for name, tensor in published.weights.items() if not tensor.dim() and not name.endswith(naming.COUNTER)
    ]
    if numbers:
        raise WeightsError(
            f'{published.path} holds single numbers where weights of a detector have dimensions: {_some(numbers)}; '
            'nothing was written'
        )


def _fitted_config(
    weights: Dict[str, Tensor],
    kind: str,
    family: Optional[Family],
    published: Published,
    config: Optional[str],
    dc5: Optional[bool],
    settings: Optional[Mapping[str, Any]],
    report: Report,
) -> ConfigWriter:
    """A config with everything that the weights need."""
    weights = Needed(weights, f'{published.path} ({report.family})')
    report.config = config or named_config(weights, load_kinds()[kind])
    cfg = load_config(report.config)
    if kind_of_config(cfg.model) is None:
        raise WeightsError(
            f'{report.config} builds a {cfg.model.type}, but {published.path} holds weights of {report.family}; '
            'nothing was written'
        )
    kept = kept_model(published.meta)
    writer = ConfigWriter(cfg, weights, kind, published.args, kept)
    writer.fit_structure()
    if config is None:
        writer.fit_sizes()
    elif misfits := writer.misfits():
        raise WeightsError(
            f'{published.path} ({report.family}) is of another size than {config}; nothing was written:\n  '
            + '\n  '.join(misfits)
            + '\nLeave out CONFIG to have one written that fits, or change these settings in it'
        )
    if family is not None:
        if dc5 is None:
            dc5 = bool(published.args.get('dilation')) or 'backbone.body.layer1.0.conv1.weight' in published.weights
        writer.fit_outputs(family, config is not None, dc5)
    else:
        if config is None:
            writer.fit_detections(writer.cfg.model.test_cfg.max_per_img, 'there are no more scores')
        writer.fit_kept(config is not None)
        if 'positional_encoding' not in kept and kind == 'dino' and writer.kind in ('dino', 'stable_dino'):
            why = "of mmdet's DINO; its improved one has 10000 and -0.5"
            writer.fit_encoding(dict(temperature=20, offset=0.0), why)
    unseen = {key: value for key, value in writer.unseen().items() if f'model.{key}' not in (settings or {})}
    if family is not None and unseen:
        values = ', '.join(f'model.{key}={value!r}' for key, value in unseen.items())
        report.notes.append(f'the weights do not show {values}, which are those of {report.config}')
    if writer.kind in ('dab_detr', 'conditional_detr') and family and family.settings['sigmoid_eps'] != 1e-5:
        report.notes.append(
            f"mmdet's {writer.cfg.model.type} cuts the inverse sigmoid off at 1e-5, {family.name} at 1e-3: boxes that "
            'come closer than that to a border of the image differ slightly'
        )
    return writer


def _checked(weights: Dict[str, Tensor], writer: ConfigWriter, report: Report) -> Dict[str, Tensor]:
    """The weights without biases that do nothing, once the model that the config builds was found to have all of them.

    Raises:
        WeightsError: where names or shapes of weights and model differ.
    """
    try:
        expected = model_of(writer.cfg).state_dict()
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise WeightsError(
            f'{report.source} ({report.family}): no detector can be built of these sizes; nothing was written: {error}'
        ) from error
    extra = {name for name in weights if name not in expected}
    idle = {name for name in extra if re.fullmatch(r'neck\.\w+\.\d+\.conv\.bias', name) and not weights[name].any()}
    if idle:
        report.notes.append(f'without biases of the neck that are all zero: {", ".join(sorted(idle))}')
    extra -= idle
    missing = [name for name in expected if name not in weights and not name.endswith(naming.COUNTER)]
    # Of a part that is there, nothing may be missing.
    absent = [part for part in FRESH if not any(name.startswith(part) for name in weights)]
    fresh = {name: part for name in missing for part in absent if name.startswith(part)}
    missing = [name for name in missing if name not in fresh]
    shapes = [
        f'{name}: {tuple(tensor.shape)} in the file, {tuple(expected[name].shape)} in the model'
        for name, tensor in weights.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if extra or missing or shapes:
        problems = [
            f'{len(names)} {what}: {_some(names)}'
            for names, what in (
                (sorted(missing), 'weights of the model are not in the file'),
                (sorted(extra), 'weights of the file are not in the model'),
                (shapes, 'have other shapes'),
            )
            if names
        ]
        raise WeightsError(
            f'{report.source} ({report.family}) does not fit {report.config}; nothing was written:\n  '
            + '\n  '.join(problems)
        )
    report.fresh = sorted(fresh)
    report.notes += [f'{FRESH[part]} starts afresh' for part in dict.fromkeys(fresh.values())]
    if 'dn_query_generator.label_embedding.weight' in fresh and writer.kind == 'dn_detr':
        report.notes.append('matching queries start with zeros as their content, so that it detects what DAB-DETR does')
    report.target = f'{writer.cfg.model.type} of mmdet_stable'
    kept = {name: tensor for name, tensor in weights.items() if name not in idle}
    counters = [name for name in expected if name.endswith(naming.COUNTER) and name not in kept]
    return {**kept, **{name: torch.tensor(0) for name in counters}}


def model_of(cfg: Config) -> torch.nn.Module:
    """The model of a config, without pretrained weights and not initialised."""
    init_default_scope('mmdet')
    return MODELS.build(copy.deepcopy(cfg.model))  # of which mmdet changes parts


def to_published(
    published: Published, to: str, config: Optional[str] = None, dc5: Optional[bool] = None
) -> Tuple[Dict[str, Tensor], Report]:
    """Our weights, or those of any other publisher, under the names of a publisher; see :func:`convert`."""
    _check_dimensions(published)
    kept = kept_model(published.meta)
    one_to_many = families.one_to_many_queries(published.args, kept)
    kind = families.in_our_names(published.weights, one_to_many)
    report = Report(published.path, kind or '', published.taken, published.others)
    weights = dict(published.weights)
    if kind is None:
        source = families.recognised(weights, str(published.path), one_to_many)
        renamed = naming.to_ours(weights, source)
        weights, kind, report.family = renamed.weights, source.kind, source.name
        report.lost_rows, report.notes, report.left_out = renamed.lost_rows, renamed.notes, renamed.left_out
        report.left_over = list(renamed.left_over)
    if config is not None:
        model = load_config(config).model
        kind = kind_of_config(model) or kind
        dc5 = bool(dc5 or model.backbone.get('dilations', (1,))[-1] == 2)
    elif dc5 is None:
        dc5 = ((kept.get('backbone') or {}).get('dilations') or [1])[-1] == 2
    if to == 'mmdet':
        if not load_kinds()[kind].in_mmdet:
            raise WeightsError(f'{published.path} holds a {kind}, which mmdet does not have; nothing was written')
        report.target, report.num_weights = f'{kind} in the names of mmdet', len(weights)
        return weights, report
    family = families.family_for(to, kind)
    result = naming.to_published(weights, family, families.facts_of(weights, kind, bool(dc5)))
    if result.left_over or report.left_over:
        names = [*report.left_over, *result.left_over]
        raise WeightsError(
            f'{family.name} has no counterpart of {len(names)} weights of {published.path}: {_some(names)}; nothing '
            'was written'
        )
    report.notes += result.notes
    report.left_out += [f'{len(result.left_out)} counters of batches'] if result.left_out else []
    if to == 'official' and kind == 'dino' and not families.shares_heads(_without_proposals(weights)):
        report.notes.append(
            'the heads of the layers differ: the official code needs dec_pred_class_embed_share=False and '
            'dec_pred_bbox_embed_share=False'
        )
    report.target, report.num_weights = family.name, len(result.weights)
    return result.weights, report


def _without_proposals(weights: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    layers = families.counts_of_ours(weights).layers
    return {name: tensor for name, tensor in weights.items() if f'_branches.{layers}.' not in name}


def save(converted: Converted, out: Path) -> Report:
    """Write a checkpoint, and its config beside it.

    Raises:
        OSError: where that fails, as on a full disk; whatever stood there before is untouched.
    """
    report, cfg = converted.report, converted.cfg
    if out.suffix == '.safetensors':
        raise WeightsError(f'{out}: checkpoints of this package are files of torch; give the suffix .pth')
    path, text = out.with_suffix('.py'), text_of(cfg) if cfg is not None else ''
    if cfg is not None:
        if path == out:
            raise WeightsError(f'{out} is the name of a config; give the checkpoint another suffix, as .pth')
        converted.meta.setdefault('dataset_meta', _dataset_meta(cfg))
        converted.meta['cfg'] = text  # where mmengine and DetInferencer look for it
    weights = {name: tensor.contiguous() for name, tensor in converted.weights.items()}
    _write(out, {'state_dict': weights, 'meta': converted.meta})
    report.written.append(out)
    if cfg is not None:
        write_whole(path, _header(report) + text)
        report.written.append(path)
    return report


def _dataset_meta(cfg: Config) -> Dict[str, Tuple[str, ...]]:
    """The names of classes of the data set that a config tests on, where the detector has as many; else numbers."""
    num_classes = cfg.model.bbox_head.num_classes
    dataset = cfg.get('test_dataloader', {}).get('dataset', {})
    known = getattr(DATASETS.get(dataset.get('type', '')), 'METAINFO', {})
    found = {**known, **dataset.get('metainfo', {})}
    if len(found.get('classes', ())) != num_classes:
        return dict(classes=tuple(f'class {number}' for number in range(num_classes)))
    return {key: tuple(found[key]) for key in ('classes', 'thing_classes', 'stuff_classes') if key in found}


def _header(report: Report) -> str:
    lines = [f'Config of {report.source.name} ({report.family}), written by tools/convert_checkpoint.py from']
    lines.append(f'{report.config}. Changed, as the weights need it:')
    lines += [f'  {entry.key} = {entry.value!r} (was {entry.before!r}; {entry.why})' for entry in report.settings]
    return ''.join(f'# {line}\n' for line in lines)


def _plain_meta(meta: Mapping[str, Any]) -> Dict[str, Any]:
    """What of mmengine's meta stays true of converted weights: the data set."""
    return {key: value for key, value in meta.items() if key == 'dataset_meta'}


def _write(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def _some(names: List[str], number: int = 8) -> str:
    names = list(names)
    return ', '.join(names[:number]) + (f' and {len(names) - number} more' if len(names) > number else '')
