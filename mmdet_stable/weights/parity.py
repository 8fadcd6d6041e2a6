"""Do converted weights compute what the reference recorded?"""

import copy
import json
from itertools import combinations
from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor, nn

from . import families, naming
from .configs import load_config, named_config_of_names
from .containers import read
from .conversion import model_of, to_ours
from .errors import WeightsError
from .kinds import load_kinds
from .sizes import transformer_settings
from .tensors import USED_ROWS

TOLERANCE = 2e-5  # of the largest value
NEAR_TIE = 1e-4  # of scores before the sigmoid: rounding may swap such proposals
MOST_TIES = 4
DEFAULT_FOLDER = Path(__file__).parents[2] / 'tests' / 'golden'
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Compared(NamedTuple):
    """Outputs of a converted model beside recorded ones."""

    logits: float  # largest difference, relative to the largest value
    boxes: float
    swapped: Tuple[int, ...] = ()  # ranks of proposals that were swapped with the next one

    @property
    def good(self) -> bool:
        return max(self.logits, self.boxes) <= TOLERANCE


def check_files(files: Sequence[Path], source: Optional[Path] = None, config: Optional[str] = None) -> Tuple[str, bool]:
    """A table of recordings, and whether all outputs are equal.

    Args:
        files: golden files, which hold weights as ``sd.*``, or recorded outputs of ``source``.
        source: published weights whose outputs were recorded.
        config: of the model that they belong to.
    """
    lines = [f'{"recording":32} {"family":28} {"logits":>9} {"boxes":>9}  ']
    good = True
    for file in files:
        with np.load(file) as data:
            arrays = dict(data)
        if source is not None:
            family, result = 'of ' + Path(source).name, compare_recorded(source, config, arrays)
        elif any(key.startswith('sd.transformer') for key in arrays) and _expected(arrays):
            family, result = compare_golden(arrays)
        else:
            continue
        good &= result.good
        swaps = f', proposals {result.swapped} swapped with the next' if result.swapped else ''
        verdict = 'equal' if result.good else 'DIFFERENT'
        lines.append(f'{Path(file).stem:32} {family:28} {result.logits:9.1e} {result.boxes:9.1e}  {verdict}{swaps}')
    if len(lines) == 1:
        raise WeightsError(f'none of {len(files)} files holds recorded weights and outputs')
    lines.append(f'largest difference, relative to the largest value; equal up to {TOLERANCE}')
    return '\n'.join(lines), good


def compare_recorded(source: Path, config: Optional[str], arrays: Mapping[str, np.ndarray]) -> Compared:
    """Published weights, converted, on the picture that the reference has seen.

    Args:
        source: file of weights.
        config: see :func:`mmdet_stable.weights.convert`.
        arrays: ``image`` (3, H, W) uint8 RGB, at the network's size; ``logits`` (1, Q, C) and ``boxes`` (1, Q, 4) of
            the last decoder layer.
    """
    converted = to_ours(read(Path(source)), config)
    model: Any = model_of(converted.cfg)
    model.load_state_dict(converted.weights)
    image = torch.from_numpy(arrays['image']).float()
    pixels = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        features = model.eval().extract_feat(pixels[None])
    return compare(model, features, tuple(image.shape[1:]), arrays['logits'], arrays['boxes'])


def compare_golden(arrays: Mapping[str, np.ndarray]) -> Tuple[str, Compared]:
    """The family of a golden file, and its outputs beside those of its own weights, converted."""
    weights = {key[3:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith('sd.')}
    family = families.recognised(weights, 'the golden file')
    renamed = naming.to_ours(weights, family)
    if renamed.left_over:
        raise WeightsError(f'no names for {", ".join(renamed.left_over)}')
    cfg, kind = golden_config(renamed.weights, family.kind, json.loads(str(arrays['meta'])), arrays)
    model = MODELS.build(copy.deepcopy(cfg.model))
    load_parts(model, renamed.weights)
    features = [torch.from_numpy(arrays[f'feats_{level}']) for level in range(3) if f'feats_{level}' in arrays]
    if 'neck.convs.0.conv.weight' in renamed.weights:
        features = model.neck(tuple(features))
    shape = tuple(int(value) for value in arrays['batch_input_shape'])
    name = families.family_for(family.publisher, kind).name
    return name, compare(model.eval(), tuple(features), shape, *_expected(arrays))


def _expected(arrays: Mapping[str, np.ndarray]) -> Tuple[np.ndarray, ...]:
    """Logits and boxes of the last layer, without masks of padding; () where none were recorded."""
    if 'eval_nomask.pred_logits' in arrays:
        return arrays['eval_nomask.pred_logits'], arrays['eval_nomask.pred_boxes']
    if 'eval.pred_logits_layers' in arrays:
        return arrays['eval.pred_logits_layers'][-1], arrays['eval.pred_boxes_layers'][-1]
    return ()


def golden_config(
    weights: Mapping[str, Tensor], kind: str, meta: Mapping, arrays: Mapping[str, np.ndarray]
) -> Tuple[Config, str]:
    """The config of a golden model, whose backbone was not recorded."""
    if 'one2one' in meta:
        kind = 'h_deformable_detr'
    cfg = load_config(named_config_of_names(kind))
    width, heads = meta['embed_dim'], meta.get('num_heads', meta.get('heads'))
    settings = transformer_settings(weights, width, heads, levels=meta.get('levels', 1))
    settings.update({f'positional_encoding.{key}': meta['pos'][key] for key in ('temperature', 'offset')})
    settings.update(
        {
            'test_cfg.max_per_img': 10,
            'num_queries': meta.get('num_queries', meta.get('one2one')),
            'bbox_head.num_classes': meta['num_classes'],
            'neck.out_channels': width,
            'neck.num_outs': meta.get('levels', 1),
            'backbone.depth': 18,
            'backbone.base_channels': 8,
            'backbone.init_cfg': None,
        }
    )
    levels = meta.get('levels')
    settings['neck.in_channels'] = [16, 32, 64][:levels] if levels else [arrays['feats_0'].shape[1]]
    if kind == 'h_deformable_detr':
        settings['one_to_many.num_queries'] = meta['one2many']
    if kind == 'dino':
        settings.update({'type': 'StableDINO', 'bbox_head.type': 'StableDINOHead'})
        settings['train_cfg.assigner.type'] = 'StableHungarianAssigner'
    if kind != 'dn_detr':
        settings.update({f'{part}.sigmoid_eps': 1e-3 for part in load_kinds()[kind].eps})
    cfg.merge_from_dict({f'model.{key}': value for key, value in settings.items()}, allow_list_keys=False)
    if cfg.model.neck.norm_cfg:
        cfg.model.neck.norm_cfg.num_groups = 8
    return cfg, kind


def load_parts(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights of whole parts of a model, e.g. of all but the backbone.

    Raises:
        WeightsError: where a part that is among the weights lacks some, or they have a name that the model has not.
    """
    parts = {name.split('.')[0] for name in weights}
    own = {name for name in model.state_dict() if name.split('.')[0] in parts}
    if set(weights) != own:
        raise WeightsError(f'names that only one side has: {", ".join(sorted(set(weights) ^ own))}')
    model.load_state_dict(weights, strict=False)


def compare(
    model: Any, features: Tuple[Tensor, ...], shape: Tuple[int, ...], logits: np.ndarray, boxes: np.ndarray
) -> Compared:
    """Outputs of the last decoder layer beside recorded ones.

    Queries of learned content belong to proposals by rank. Where two neighbours in that order have nearly equal scores,
    rounding decides; then the outputs with these two swapped are compared, too, just as strictly.
    """
    wanted = (torch.from_numpy(logits), torch.from_numpy(boxes))
    if wanted[0].shape[-1] == 91:
        wanted = (wanted[0][..., list(USED_ROWS)], wanted[1])
    found = outputs(model, features, shape)
    result = compared(found, wanted)
    ties = near_ties(model, features, shape, wanted[0].shape[1]) if not result.good else []
    for number in range(1, min(len(ties), MOST_TIES) + 1):
        for swapped in combinations(ties, number):
            order = list(range(wanted[0].shape[1]))
            for rank in swapped:
                order[rank], order[rank + 1] = order[rank + 1], order[rank]
            content = model.query_embedding.weight.detach().clone()
            rows = [*order, *range(len(order), len(content))]
            try:
                model.query_embedding.weight.data.copy_(content[rows])
                logits_of_all, boxes_of_all = outputs(model, features, shape)
            finally:
                model.query_embedding.weight.data.copy_(content)
            other = compared((logits_of_all[:, order], boxes_of_all[:, order]), wanted, swapped)
            if other.good:
                return other
    return result


def compared(found: Tuple[Tensor, Tensor], wanted: Tuple[Tensor, Tensor], swapped: Tuple[int, ...] = ()) -> Compared:
    """Differences of logits and boxes."""
    return Compared(_difference(found[0], wanted[0]), _difference(found[1], wanted[1]), swapped)


def outputs(model: Any, features: Tuple[Tensor, ...], shape: Tuple[int, ...]) -> Tuple[Tensor, Tensor]:
    """Logits (B, Q, C) and boxes (B, Q, 4) of the last decoder layer, for images that fill the batch's shape."""
    with torch.no_grad():
        logits, boxes = model.bbox_head(**model.forward_transformer(features, _samples(features, shape)))
    return logits[-1], boxes[-1]


def near_ties(model: Any, features: Tuple[Tensor, ...], shape: Tuple[int, ...], num_queries: int) -> List[int]:
    """Ranks of proposals whose score, in some image, is hardly above that of the next one."""
    if not getattr(model, 'as_two_stage', False) or not hasattr(model, 'query_embedding'):
        return []
    with torch.no_grad():
        encoder_inputs, _ = model.pre_transformer(features, _samples(features, shape))
        tokens, _ = model.gen_encoder_output_proposals(**model.forward_encoder(**encoder_inputs))
        logits = model.bbox_head.cls_branches[model.decoder.num_layers](tokens)
    scores = logits[..., 0] if model.class_agnostic_encoder else logits.amax(-1)
    best = scores.topk(num_queries, dim=1).values
    close = (best[:, :-1] - best[:, 1:] < NEAR_TIE * best.abs().max()).any(0)
    return close.nonzero().flatten().tolist()


def _samples(features: Tuple[Tensor, ...], shape: Tuple[int, ...]) -> List[DetDataSample]:
    return [DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape)) for _ in features[0]]


def _difference(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        raise WeightsError(f'outputs are {tuple(found.shape)}, recorded were {tuple(wanted.shape)}')
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
