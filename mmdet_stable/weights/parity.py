"""Do converted weights compute what the reference recorded?"""

import json
from itertools import combinations
from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor, nn

from mmdet_stable.models.detectors import MaskDINO
from mmdet_stable.models.layers import PixelDecoderOutputs

from . import families, naming
from .configs import load_config, named_config_of_names
from .containers import read
from .conversion import model_of, to_ours
from .errors import WeightsError
from .kinds import load_kinds
from .sizes import class_loss, mask_dino_settings, transformer_settings
from .tensors import USED_ROWS

TOLERANCE = 2e-5  # of the largest value
NEAR_TIE = 1e-4  # of scores before the sigmoid: rounding may swap such proposals
MOST_TIES = 4
DEFAULT_FOLDER = Path(__file__).parents[2] / 'tests' / 'golden'
Features = Union[Tuple[Tensor, ...], PixelDecoderOutputs]  # of the neck
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Compared(NamedTuple):
    """Outputs of a converted model beside recorded ones."""

    logits: float  # largest difference, relative to the largest value
    boxes: float
    masks: Optional[float] = None  # where the detector predicts them
    swapped: Tuple[int, ...] = ()  # ranks of proposals that were swapped with the next one

    @property
    def good(self) -> bool:
        return max(self.logits, self.boxes, self.masks or 0.0) <= TOLERANCE


def check_files(
    files: Sequence[Path], source: Optional[Path] = None, config: Optional[str] = None, **options: Any
) -> Tuple[str, bool]:
    """A table of recordings, and whether all outputs are equal.

    Args:
        files: golden files, which hold weights as ``sd.*``, or recorded outputs of ``source``.
        source: published weights whose outputs were recorded.
        config: of the model that they belong to.
        options: ``dc5`` and ``settings`` of :func:`mmdet_stable.weights.convert`.
    """
    lines = [f'{"recording":32} {"family":28} {"logits":>9} {"boxes":>9} {"masks":>9}  ']
    good = True
    for file in files:
        with np.load(file) as data:
            arrays = dict(data)
        if source is not None:
            family, result = 'of ' + Path(source).name, compare_recorded(source, config, arrays, **options)
        elif any(key.startswith(('sd.transformer', 'sd.predictor')) for key in arrays) and _expected(arrays):
            family, result = compare_golden(arrays)
        else:
            continue
        good &= result.good
        swaps = f', proposals {result.swapped} swapped with the next' if result.swapped else ''
        verdict = 'equal' if result.good else 'DIFFERENT'
        masks = '' if result.masks is None else f'{result.masks:.1e}'
        differences = f'{result.logits:9.1e} {result.boxes:9.1e} {masks:>9}'
        lines.append(f'{Path(file).stem:32} {family:28} {differences}  {verdict}{swaps}')
    if len(lines) == 1:
        raise WeightsError(f'none of {len(files)} files holds recorded weights and outputs')
    lines.append(f'largest difference, relative to the largest value; equal up to {TOLERANCE}')
    return '\n'.join(lines), good


def compare_recorded(source: Path, config: Optional[str], arrays: Mapping[str, np.ndarray], **options: Any) -> Compared:
    """Published weights, converted, on the picture that the reference has seen.

    Args:
        source: file of weights.
        config: see :func:`mmdet_stable.weights.convert`; options, too.
        arrays: ``image`` (3, H, W) uint8 RGB, at the network's size; ``logits`` (1, Q, C), ``boxes`` (1, Q, 4) and,
            for MaskDINO, ``masks`` (1, Q, h, w), of the last decoder layer.
    """
    converted = to_ours(read(Path(source)), config, **options)
    model: Any = model_of(converted.cfg)
    model.load_state_dict(converted.weights)
    image = torch.from_numpy(arrays['image']).float()
    pixels = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        features = model.eval().extract_feat(pixels[None])
    recorded = [arrays[key] for key in ('logits', 'boxes', 'masks') if key in arrays]
    return compare(model, features, tuple(image.shape[1:]), *recorded)


def compare_golden(arrays: Mapping[str, np.ndarray]) -> Tuple[str, Compared]:
    """The family of a golden file, and its outputs beside those of its own weights, converted."""
    part = 'sem_seg_head.' if 'feats.res5' in arrays else ''  # MaskDINO's is recorded alone
    weights = {part + key[3:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith('sd.')}
    family = families.recognised(weights, 'the golden file')
    renamed = naming.to_ours(weights, family)
    if renamed.left_over:
        raise WeightsError(f'no names for {", ".join(renamed.left_over)}')
    meta = json.loads(str(arrays['meta']))
    make = mask_dino_config if part else golden_config
    cfg, kind = make(renamed.weights, family.kind, meta, arrays)
    model: Any = model_of(cfg)
    load_parts(model, renamed.weights)
    maps = [f'feats.res{stage}' for stage in (2, 3, 4, 5)] if part else [f'feats_{level}' for level in range(3)]
    features = tuple(torch.from_numpy(arrays[name]) for name in maps if name in arrays)
    finest = features[0].shape[-2:]  # of MaskDINO, at a quarter of the input's size
    shape = tuple(4 * size for size in finest) if part else tuple(int(size) for size in arrays['batch_input_shape'])
    if any(name.startswith('neck.') for name in renamed.weights):
        with torch.no_grad():
            features = model.neck(features)
    name = families.family_for(family.publishers[0], kind).name
    return name, compare(model.eval(), features, shape, *_expected(arrays))


def _expected(arrays: Mapping[str, np.ndarray]) -> Tuple[np.ndarray, ...]:
    """Logits, boxes and, if any, masks of the last layer, without masks of padding; () where none were recorded."""
    if 'eval_nomask.pred_logits' in arrays:
        return arrays['eval_nomask.pred_logits'], arrays['eval_nomask.pred_boxes']
    found = []
    for name in ('logits', 'boxes', 'masks'):
        if f'eval.pred_{name}_layers' in arrays:
            found.append(arrays[f'eval.pred_{name}_layers'][-1])
        elif f'eval.pred_{name}' in arrays:
            found.append(arrays[f'eval.pred_{name}'])
    return tuple(found)


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


def mask_dino_config(
    weights: Mapping[str, Tensor], kind: str, meta: Mapping, arrays: Mapping[str, np.ndarray]
) -> Tuple[Config, str]:
    """The config of a golden MaskDINO, whose backbone was not recorded."""
    cfg = load_config(named_config_of_names(kind))
    settings = mask_dino_settings(weights, meta['hidden_dim'], meta['heads'])
    settings.update(
        {
            'bbox_head.loss_cls': dict(class_loss(weights), _delete_=True),
            'backbone.depth': 18,
            'backbone.base_channels': 8,
            'backbone.init_cfg': None,
            'initialize_box_type': meta['initialize_box_type'],
            'num_queries': meta['num_queries'],
            'test_cfg.max_per_img': meta['num_queries'],
            'neck.in_channels': [arrays[f'feats.res{stage}'].shape[1] for stage in (2, 3, 4, 5)],
        }
    )
    cfg.merge_from_dict({f'model.{key}': value for key, value in settings.items()}, allow_list_keys=False)
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


def compare(model: Any, features: Features, shape: Tuple[int, ...], *recorded: np.ndarray) -> Compared:
    """Outputs of the last decoder layer beside recorded ones: logits, boxes and, if any, masks.

    Queries belong to proposals by rank. Where two neighbours in that order have nearly equal scores, rounding decides;
    then the outputs with these two swapped are compared, too, just as strictly.
    """
    wanted = [torch.from_numpy(values) for values in recorded]
    if wanted[0].shape[-1] == 91:
        wanted[0] = wanted[0][..., list(USED_ROWS)]
    found = outputs(model, features, shape)
    result = compared(found, wanted)
    ties = near_ties(model, features, shape, wanted[0].shape[1]) if not result.good else []
    for number in range(1, min(len(ties), MOST_TIES) + 1):
        for swapped in combinations(ties, number):
            order = list(range(wanted[0].shape[1]))
            for rank in swapped:
                order[rank], order[rank + 1] = order[rank + 1], order[rank]
            others = found
            if hasattr(model, 'query_embedding'):  # learned by rank, so that other content meets these two proposals
                others = _with_content(model, features, shape, order)
            other = compared([values[:, order] for values in others], wanted, swapped)
            if other.good:
                return other
    return result


def _with_content(model: Any, features: Features, shape: Tuple[int, ...], order: List[int]) -> List[Tensor]:
    """Outputs where the learned content of queries is in another order."""
    content = model.query_embedding.weight.detach().clone()
    try:
        model.query_embedding.weight.data.copy_(content[[*order, *range(len(order), len(content))]])
        return outputs(model, features, shape)
    finally:
        model.query_embedding.weight.data.copy_(content)


def compared(found: Sequence[Tensor], wanted: Sequence[Tensor], swapped: Tuple[int, ...] = ()) -> Compared:
    """Differences of logits and boxes, and of masks where both have them."""
    differences = [_difference(*values) for values in zip(found, wanted)]
    return Compared(differences[0], differences[1], differences[2] if len(differences) > 2 else None, swapped)


def outputs(model: Any, features: Features, shape: Tuple[int, ...]) -> List[Tensor]:
    """Logits (B, Q, C), boxes (B, Q, 4) and, of MaskDINO, masks (B, Q, h, w) of the last decoder layer, for images that
    fill the batch's shape."""
    with torch.no_grad():
        inputs = model.forward_transformer(features, _samples(features, shape))
        last = [values[-1] for values in model.bbox_head(**inputs)]
    if isinstance(model, MaskDINO):
        last[2] = torch.einsum('bqe,behw->bqhw', last[2], inputs['mask_features'])
    return last


def near_ties(model: Any, features: Features, shape: Tuple[int, ...], num_queries: int) -> List[int]:
    """Ranks of proposals whose score, in some image, is hardly above that of the next one."""
    if not getattr(model, 'as_two_stage', False):
        return []
    with torch.no_grad():
        encoder_inputs, _ = model.pre_transformer(features, _samples(features, shape))
        encoded = model.forward_encoder(**encoder_inputs)
        mask_features = encoded.pop('mask_features', None)
        encoded.setdefault('memory_mask', None)
        tokens, _ = model.gen_encoder_output_proposals(**encoded)
        last = model.decoder.num_layers
        branch = model.bbox_head.cls_branches[last] if mask_features is None else model.bbox_head.predictor.cls
        logits = branch(tokens)
    scores = logits[..., 0] if model.class_agnostic_encoder else logits.amax(-1)
    best = scores.topk(num_queries, dim=1).values
    close = (best[:, :-1] - best[:, 1:] < NEAR_TIE * best.abs().max()).any(0)
    return close.nonzero().flatten().tolist()


def _samples(features: Features, shape: Tuple[int, ...]) -> List[DetDataSample]:
    return [DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape)) for _ in features[0]]


def _difference(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        raise WeightsError(f'outputs are {tuple(found.shape)}, recorded were {tuple(wanted.shape)}')
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
