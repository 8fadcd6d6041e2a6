"""Golden values of MaskDINO: its parts, with the weights recorded from the reference implementation."""

import json
from functools import reduce
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmdet_stable.models.dense_heads import MaskDINOPredictor
from mmdet_stable.models.layers import (
    DinoDecoder,
    DNQueryGenerator,
    MaskDINOPixelDecoder,
    initial_boxes,
    select_tokens,
)
from mmdet_stable.models.layers.denoising import centre_size_noise, flip_labels
from mmdet_stable.models.layers.mask_dino_queries import LOGIT_EPS
from mmdet_stable.structures import BatchTargets, DenoisingLayout, Matched, QueryPlan, Segment
from mmdet_stable.weights.rules import Counts, Translation, load_rules
from tests.utils import data_sample, golden_samples, tensor

PARTS = dict(pixel_decoder='pixel_decoder.', predictor='predictor.')


def meta_of(data: Dict[str, np.ndarray]) -> dict:
    return json.loads(str(data['meta']))


def our_names(data: Dict[str, np.ndarray], part: str) -> Dict[str, str]:
    """The reference's names of ``'pixel_decoder'`` or ``'predictor'`` (all that is not pixel decoder), and those of our
    detector, by the rules that convert published weights."""
    names = [key[3:] for key in data if key.startswith(f'sd.{PARTS[part]}')]
    translation = Translation(load_rules()[0]['maskdino'].rules, Counts(meta_of(data)['dec_layers'], 0, 0))
    found = {name: translation.to_ours(f'sem_seg_head.{name}') for name in names}
    assert all(found.values()), found
    return {name: ours[0] for name, ours in found.items()}


def reference_state(data: Dict[str, np.ndarray], part: str) -> Dict[str, Tensor]:
    """The recorded weights under our names."""
    return {ours: tensor(data[f'sd.{name}']) for name, ours in our_names(data, part).items()}


def load(module: nn.Module, state: Dict[str, Tensor], prefix: str = '') -> nn.Module:
    """Load what is called ``prefix...``; nothing may be missing."""
    own = {name: state[prefix + name] for name in module.state_dict()}
    module.load_state_dict(own)
    return module


def maps_of(data: Dict[str, np.ndarray]) -> List[Tensor]:
    return [tensor(data[f'feats.res{stage}']) for stage in (2, 3, 4, 5)]


def deformable(meta: dict) -> dict:
    return dict(embed_dims=meta['hidden_dim'], num_heads=meta['heads'], num_levels=meta['total_levels'])


def pixel_decoder(data: Dict[str, np.ndarray], **overrides) -> MaskDINOPixelDecoder:
    """The pixel decoder of a golden file, with its weights."""
    meta = meta_of(data)
    settings = dict(
        in_channels=[data[f'feats.res{stage}'].shape[1] for stage in (2, 3, 4, 5)],
        feat_channels=meta['hidden_dim'],
        out_channels=meta['mask_dim'],
        num_levels=meta['total_levels'],
        num_encoder_inputs=len(meta.get('in_features', ['res3', 'res4', 'res5'])),
        level_order=meta.get('feature_order', 'low2high'),
        encoder=dict(
            num_layers=meta['enc_layers'],
            layer_cfg=dict(
                self_attn_cfg=dict(deformable(meta), dropout=0.0),
                ffn_cfg=dict(embed_dims=meta['hidden_dim'], feedforward_channels=meta['ff'], ffn_drop=0.0),
            ),
        ),
    )
    state = reference_state(data, 'pixel_decoder')
    return load(MaskDINOPixelDecoder(**{**settings, **overrides}), state, 'neck.').eval()


class GoldenMaskDINO:
    """Pixel decoder, query selection, decoder and predictor of a golden file, put together from tensors."""

    def __init__(self, data: Dict[str, np.ndarray]) -> None:
        self.data, self.meta = data, meta_of(data)
        state = reference_state(data, 'predictor')
        width, classes = self.meta['hidden_dim'], self.meta['num_classes']
        self.two_stage = self.meta.get('two_stage', True)
        self.pixel_decoder = pixel_decoder(data)
        softmax = self.meta.get('semantic_ce_loss', False)
        self.predictor = MaskDINOPredictor(classes, width, self.meta['mask_dim'], softmax)
        load(self.predictor, state, 'bbox_head.predictor.')
        attention = dict(embed_dims=width, num_heads=self.meta['heads'], dropout=0.0)
        self.decoder = DinoDecoder(
            sigmoid_eps=LOGIT_EPS,
            num_layers=self.meta['dec_layers'],
            return_intermediate=True,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=dict(attention, num_levels=self.meta['total_levels']),
                ffn_cfg=dict(embed_dims=width, feedforward_channels=self.meta['ff'], ffn_drop=0.0),
            ),
            post_norm_cfg=None,
        )
        load(self.decoder, state, 'decoder.')
        self.label_embedding = load(nn.Embedding(classes, width), state, 'dn_query_generator.label_embedding.')
        if self.two_stage:
            self.memory_trans_fc = load(nn.Linear(width, width), state, 'memory_trans_fc.')
            self.memory_trans_norm = load(nn.LayerNorm(width), state, 'memory_trans_norm.')
        else:
            self.query_feat = load(nn.Embedding(self.meta['num_queries'], width), state, 'query_feat.')
            self.query_embed = load(nn.Embedding(self.meta['num_queries'], 4), state, 'query_embed.')

    def __call__(self, dn_content: Optional[Tensor] = None, dn_boxes: Optional[Tensor] = None, mask=None) -> None:
        """Sets ``outputs``, ``tokens``, ``encoder`` (predictions or None) and ``layers`` (predictions), denoising
        queries (B, T, D) and their boxes (B, T, 4) before the sigmoid, first."""
        maps = self.maps = [feat.requires_grad_() for feat in maps_of(self.data)]
        self.outputs = self.pixel_decoder(maps)
        memory, shapes = self.outputs.memory()
        features, norm = self.outputs.mask_features, self.decoder.norm
        self.tokens = self.encoder = None
        if self.two_stage:
            proposals = DeformableDETR.gen_encoder_output_proposals(self, memory, None, torch.tensor(shapes))
            branches = self.predictor.cls, self.predictor.reg
            self.tokens = select_tokens(*proposals, *branches, self.meta['num_queries'])
            self.encoder = self.predictor.predict_tokens(norm, self.tokens)
            box_type = self.meta['initialize_box_type']
            embeddings = self.encoder.mask_embeddings[0]
            content = self.tokens.content.detach()
            boxes = initial_boxes(self.tokens.boxes_unact, embeddings, features, box_type)
        else:
            learned = self.query_feat.weight, self.query_embed.weight
            content, boxes = (value.expand(len(memory), -1, -1) for value in learned)
        if dn_content is not None:
            content, boxes = torch.cat([dn_content, content], 1), torch.cat([dn_boxes, boxes], 1)
        shapes = torch.tensor(shapes)
        states, references = self.decoder(
            query=content,
            value=memory,
            key_padding_mask=None,
            self_attn_mask=mask,
            reference_points=boxes.sigmoid(),
            spatial_shapes=shapes,
            level_start_index=shapes.prod(1).cumsum(0) - shapes.prod(1),
            valid_ratios=torch.ones(len(memory), len(shapes), 2),
            reg_branches=[self.predictor.reg] * self.meta['dec_layers'],
        )
        self.layers = self.predictor.predict_layers(norm, content, states, torch.stack(references))

    def grad(self, name: str) -> Tensor:
        """Gradient of a parameter by the reference's name."""
        name = our_names(self.data, name.split('.')[0])[name]
        places = {
            'neck.': self.pixel_decoder,
            'bbox_head.predictor.': self.predictor,
            'decoder.': self.decoder,
            'dn_query_generator.': self,
            '': self,
        }
        prefix = next(prefix for prefix in places if name.startswith(prefix))
        return reduce(getattr, name[len(prefix) :].split('.'), places[prefix]).grad

    def masks(self, embeddings: Tensor) -> Tensor:
        """(..., B, Q, h, w) logits of mask embeddings (..., B, Q, E)."""
        return torch.einsum('...bqe,behw->...bqhw', embeddings, self.outputs.mask_features)

    def denoising(self) -> Tuple[Tensor, Tensor, Tensor, DenoisingLayout, BatchTargets]:
        """Content, boxes before the sigmoid and attention mask from the recorded draws; layout, and the targets."""
        data, meta = self.data, self.meta
        batch = golden_samples(data, scale=1000)
        targets = BatchTargets.from_instances([s.gt_instances for s in batch], [s.metainfo for s in batch])
        generator = DNQueryGenerator(
            meta['num_classes'],
            meta['hidden_dim'],
            num_queries=meta['dn_num'],
            indicator=False,
            ignore_padding=False,
        )
        generator.label_embedding = self.label_embedding
        layout = generator.layout(targets)
        labels, boxes = layout.spread(targets.labels), layout.spread(targets.boxes_cxcywh)
        valid = layout.shown(torch.device('cpu'))[..., None]
        flip = tensor(data['train.rand_label_p'])
        random_labels = torch.zeros(len(flip), dtype=torch.long)
        random_labels[flip < 0.2] = tensor(data['train.randint_label'])
        spread = (layout.num_slots, targets.num_gts)
        labels = flip_labels(labels, spread_draws(flip, *spread), spread_draws(random_labels, *spread), 0.2)
        draws = spread_draws(tensor(data['train.rand_box']) * 2 - 1, *spread)
        boxes = centre_size_noise(boxes, draws, (0.4, 0.4))
        boxes = inverse_sigmoid(boxes, eps=LOGIT_EPS) * valid
        matching = Segment('', meta['num_queries'], Matched())
        mask = QueryPlan((Segment('dn_', layout.num_queries, layout), matching), targets).attention_mask()
        return generator.content(labels) * valid, boxes, mask, layout, targets


def spread_draws(recorded: Tensor, num_slots: int, num_gts: Sequence[int]) -> Tensor:
    """Draws for the ground truths of all images in a row, group after group, as (B, T, ...) with zeros in padding."""
    recorded = recorded.reshape(-1, sum(num_gts), *recorded.shape[1:])
    images = recorded.split(list(num_gts), 1)
    padded = [torch.cat([im, im.new_zeros(len(im), num_slots - im.shape[1], *im.shape[2:])], 1) for im in images]
    return torch.stack([im.flatten(0, 1) for im in padded])


def detector_cfg(meta: dict, in_channels: Sequence[int]) -> ConfigDict:
    """The config of a detector of a golden file's sizes."""
    softmax = meta.get('semantic_ce_loss', False)
    num_classes, width = meta['num_classes'], meta['hidden_dim']
    attention = dict(embed_dims=width, num_heads=meta['heads'], dropout=0.0)
    cross_attention = dict(attention, num_levels=meta['total_levels'])
    ffn = dict(embed_dims=width, feedforward_channels=meta['ff'], ffn_drop=0.0)
    loss_cls = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=4.0)
    if softmax:
        class_weight = [1.0] * num_classes + [meta['eos_coef']]
        loss_cls = dict(type='CrossEntropyLoss', class_weight=class_weight, loss_weight=4.0)
    names = ('num_points', 'oversample_ratio', 'importance_sample_ratio')
    return ConfigDict(
        type='MaskDINO',
        num_queries=meta['num_queries'],
        initialize_box_type=meta.get('initialize_box_type', 'no'),
        as_two_stage=meta.get('two_stage', True),
        dn_cfg=dict(num_queries=meta['dn_num']),
        backbone=dict(type='ResNet', depth=18, base_channels=8, init_cfg=None),
        neck=dict(
            type='MaskDINOPixelDecoder',
            in_channels=in_channels,
            feat_channels=width,
            out_channels=meta['mask_dim'],
            num_levels=meta['total_levels'],
            num_encoder_inputs=len(meta.get('in_features', ['res3', 'res4', 'res5'])),
            level_order=meta.get('feature_order', 'low2high'),
            encoder=dict(num_layers=meta['enc_layers'], layer_cfg=dict(self_attn_cfg=cross_attention, ffn_cfg=ffn)),
        ),
        decoder=dict(
            num_layers=meta['dec_layers'],
            return_intermediate=True,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=cross_attention, ffn_cfg=ffn),
            post_norm_cfg=None,
        ),
        bbox_head=dict(
            type='MaskDINOHead',
            num_classes=num_classes,
            embed_dims=width,
            mask_dims=meta['mask_dim'],
            num_things=meta.get('stuff_from', num_classes),
            things_only_boxes=meta.get('panoptic_box_loss', False),
            share_points=False,
            points=dict({name: meta[name] for name in names}, share_candidates=False),
            loss_cls=loss_cls,
            loss_bbox=dict(type='L1Loss', loss_weight=5.0),
            loss_iou=dict(type='GIoULoss', loss_weight=2.0),
        ),
        train_cfg=dict(
            assigner=dict(
                type='StableHungarianAssigner',
                match_costs=[
                    dict(type='FocalLossCost', weight=4.0, eps=1e-8),
                    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                    dict(type='IoUCost', iou_mode='giou', weight=2.0),
                    dict(type='CrossEntropyLossCost', weight=5.0),
                    dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            )
        ),
        test_cfg=dict(max_per_img=8),
    )


def golden_detector(data: Dict[str, np.ndarray]) -> nn.Module:
    """The detector of a golden file, with its weights; its backbone is not that of the file."""
    cfg = detector_cfg(meta_of(data), [data[f'feats.res{stage}'].shape[1] for stage in (2, 3, 4, 5)])
    model = MODELS.build(cfg)
    state = {**reference_state(data, 'pixel_decoder'), **reference_state(data, 'predictor')}
    own = {name for name in model.state_dict() if not name.startswith('backbone.')}
    assert set(state) == own, sorted(set(state) ^ own)
    model.load_state_dict({**model.state_dict(), **state})
    return model


def golden_batch(data: Dict[str, np.ndarray]) -> list:
    """Data samples with the recorded boxes and masks, whose images fill the input."""
    result = []
    for image in range(sum(key.startswith('gt_labels_') for key in data)):
        masks = data[f'gt_masks_{image}'].astype(np.uint8)
        height, width = masks.shape[1:]
        boxes = bbox_cxcywh_to_xyxy(tensor(data[f'gt_boxes_{image}'])) * torch.tensor([width, height] * 2)
        sample = data_sample(boxes, tensor(data[f'gt_labels_{image}']), (height, width))
        sample.gt_instances.masks = BitmapMasks(masks, height, width)
        result.append(sample)
    return result
