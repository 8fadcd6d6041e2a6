"""The mixing matrix of docs/mixing.md: each of our parts in each detector of mmdet's and ours, by config alone.

A cell is what a config changes to use the part or, for what cannot be, the error that tells so when the model is built.
"""

import copy
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config

from tests.utils import ROOT, build, samples, shrink, with_masks

PMC = dict(type='PositionModulatedFocalCost', weight=2.0)
PSL = dict(_delete_=True, type='PositionSupervisedLoss', f1='s^2', loss_weight=6.0)
FOCAL = dict(_delete_=True, type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
COST = dict(train_cfg=dict(assigner=dict(match_costs=[PMC])))  # in place of the first
ASSIGNER = dict(assigner=dict(type='StableHungarianAssigner'))
FUSION = dict(fusion=dict(type='DenseMemoryFusion'))
GROUPS = dict(num_groups=3)
BUDGET = dict(_delete_=True, type='DNQueryGenerator', num_queries=20)
ONE_TO_MANY = dict(num_queries=30, num_copies=3)

# What a user would write where the part does not fit.
ATTEMPTS = dict(fusion=dict(encoder=FUSION), denoising=dict(dn_cfg=GROUPS), one_to_many=dict(one_to_many=ONE_TO_MANY))
NO_FUSION = "unexpected keyword argument 'fusion'"
NO_DENOISING = "unexpected keyword argument 'dn_cfg'"
NO_ONE_TO_MANY = "unexpected keyword argument 'one_to_many'"


def whole(head, **model):
    """Stable matching as a whole, with the set loss of our heads."""
    costs = [PMC, dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'), dict(type='IoUCost', weight=2.0)]
    return dict(
        bbox_head=dict(type=head, loss_cls=PSL, target_rescale='one'),
        train_cfg=dict(assigner=dict(_delete_=True, type='StableHungarianAssigner', match_costs=costs)),
        **model,
    )


def row(config, head, fusion, denoising, one_to_many, **others):
    cells = dict(
        cost=COST,
        assigner=dict(train_cfg=ASSIGNER),
        loss=dict(bbox_head=dict(loss_cls=PSL)),
        set_loss=whole(head),
        fusion=fusion,
        denoising=denoising,
        one_to_many=one_to_many,
    )
    return config, {**cells, **others}


def deformable(config):
    head = 'StableDeformableDETRHead'
    return row(
        config,
        head,
        dict(type='StableDeformableDETR', encoder=FUSION),
        whole(head, type='DNDeformableDETR', with_box_refine=True, dn_cfg=GROUPS),
        whole(head, type='StableDeformableDETR', one_to_many=ONE_TO_MANY),
    )


MATRIX = {
    'DETR': row(
        'mmdet::detr/detr_r50_8xb2-150e_coco.py',
        'StableDETRHead',
        NO_FUSION,
        NO_DENOISING,
        NO_ONE_TO_MANY,
        cost=dict(COST, bbox_head=dict(loss_cls=FOCAL)),
    ),
    'Conditional-DETR': row(
        'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
        'StableConditionalDETRHead',
        NO_FUSION,
        whole('StableConditionalDETRHead', type='DNConditionalDETR', dn_cfg=GROUPS),
        NO_ONE_TO_MANY,
    ),
    'DAB-DETR': row(
        'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py',
        'StableDABDETRHead',
        NO_FUSION,
        whole('StableDABDETRHead', type='DNDETR', dn_cfg=GROUPS),
        NO_ONE_TO_MANY,
    ),
    'Deformable-DETR': deformable('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'),
    'Deformable-DETR, refined': deformable('mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'),
    'Deformable-DETR, two-stage': deformable(
        'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
    ),
    'DINO': row(
        'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        'StableDINOHead',
        dict(type='StableDINO', encoder=FUSION),
        whole('StableDINOHead', type='StableDINO', dn_cfg=BUDGET),
        whole('StableDINOHead', type='StableDINO', one_to_many=ONE_TO_MANY),
    ),
    'DDQ-DETR': row(
        'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
        'StableDINOHead',
        dict(type='StableDDQDETR', encoder=FUSION),
        "dn_cfg.type='DNQueryGenerator': .* its head knows",
        NO_ONE_TO_MANY,
        loss="'PositionSupervisedLoss': DDQDETRHead does not hand the IoU",
        set_loss="bbox_head.type='StableDINOHead': DDQ-DETR needs its own",
    ),
    'DAB-Deformable-DETR': row(
        'configs/deformable_detr/dab_deformable_detr_r50_12e.py',
        'StableDeformableDETRHead',
        dict(encoder=FUSION),
        dict(type='DNDeformableDETR', dn_cfg=GROUPS),
        NO_ONE_TO_MANY,
    ),
    'H-DETR': row(
        'configs/deformable_detr/h_deformable_detr_r50_12e.py',
        'StableDeformableDETRHead',
        dict(encoder=FUSION),
        NO_DENOISING,
        dict(one_to_many=ONE_TO_MANY),
    ),
    'Stable-DINO': row(
        'configs/stable_dino_r50_12e.py',
        'StableDINOHead',
        dict(encoder=FUSION),
        dict(dn_cfg=dict(num_queries=20)),
        dict(one_to_many=ONE_TO_MANY),
    ),
    'MaskDINO': row(
        'configs/mask_dino/mask_dino_r50_12e.py',
        'MaskDINOHead',
        dict(neck=dict(encoder=FUSION)),
        dict(dn_cfg=dict(num_queries=20)),
        dict(one_to_many=ONE_TO_MANY),
    ),
}
ATTEMPTS['DDQ-DETR', 'loss'] = dict(type='StableDDQDETR', bbox_head=dict(loss_cls=PSL))
ATTEMPTS['DDQ-DETR', 'set_loss'] = whole('StableDINOHead', type='StableDDQDETR')
ATTEMPTS['DDQ-DETR', 'denoising'] = dict(type='StableDDQDETR', dn_cfg=BUDGET)
CELLS = [(detector, part) for detector, (_, cells) in MATRIX.items() for part in cells]


def model_cfg(detector, changes):
    """The small model of a detector with the changes of one cell."""
    config, _ = MATRIX[detector]
    ours = config.startswith('configs/')
    cfg = Config.fromfile(ROOT / config) if ours else get_config(config)
    cfg.model.bbox_head.setdefault('embed_dims', 256)
    shrink(cfg.model, width=32 if ours else 256)  # mmdet's own detectors allow no other
    costs = changes.get('train_cfg', {}).get('assigner', {}).get('match_costs', [])
    kept = cfg.model.train_cfg.assigner.match_costs[len(costs) :]
    cfg.model = Config._merge_a_into_b(copy.deepcopy(changes), cfg.model)  # merging empties `_delete_`
    if costs:
        cfg.model.train_cfg.assigner.match_costs = [*costs, *kept]
    return cfg.model


@pytest.mark.parametrize('detector, part', CELLS, ids=[f'{part} in {detector}' for detector, part in CELLS])
def test_cell(detector, part):
    cell = MATRIX[detector][1][part]
    if isinstance(cell, str):
        attempt = ATTEMPTS.get((detector, part)) or ATTEMPTS[part]
        with pytest.raises((TypeError, ValueError), match=cell):
            build(model_cfg(detector, attempt))
        return
    model = build(model_cfg(detector, cell)).train()
    images, batch = torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96))
    if detector == 'MaskDINO':
        with_masks(batch, model_cfg(detector, cell))
    losses = model.loss(images, batch)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert ('d0.dn_loss_cls' in losses) >= (part == 'denoising')
    assert ('d0.o2m_loss_cls' in losses) >= (part == 'one_to_many')
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert len(model.eval().predict(images, batch)) == 2


@pytest.mark.parametrize(
    'detector, head, fitting',
    [
        ('DINO', 'StableDeformableDETRHead', 'StableDINOHead'),
        ('Deformable-DETR, two-stage', 'StableDINOHead', 'StableDeformableDETRHead'),
    ],
)
def test_heads_that_supervise_proposals_in_another_way(detector, head, fitting):
    """mmdet's detectors do not check their heads, and the shapes fit."""
    model = build(model_cfg(detector, whole(head))).train()
    with pytest.raises(ValueError, match=f'model.bbox_head.type={head!r}: .*; use {fitting!r}'):
        model.loss(torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96)))


def test_mask_dino_needs_its_own_head():
    with pytest.raises(ValueError, match=r"model.bbox_head.type='StableDINOHead': MaskDINO .* fit are MaskDINOHead"):
        build(model_cfg('MaskDINO', dict(bbox_head=dict(type='StableDINOHead'))))


def test_ddq_detr_takes_images_of_few_tokens():
    """It fills up its queries itself."""
    model = build(model_cfg('DDQ-DETR', dict(MATRIX['DDQ-DETR'][1]['fusion'], num_queries=60))).train()
    images, batch = torch.randn(2, 3, 32, 48), samples((3, 1), (32, 48))
    total, _ = model.parse_losses(model.loss(images, batch))
    assert total.isfinite() and len(model.eval().predict(images, batch)) == 2


def test_the_documented_matrix_is_this_one():
    """A type, or ``yes``, where a cell works, and ``-``, with the number of a footnote, where it does not."""
    table = re.findall(r'^\| ([^|]+) \|(.+)\|$', (ROOT / 'docs' / 'mixing.md').read_text(), flags=re.M)
    documented = {name.strip(): [cell.strip() for cell in cells.split('|')] for name, cells in table}
    for detector, (_, cells) in MATRIX.items():
        works = [not isinstance(cell, str) for cell in cells.values()]
        assert [not cell.startswith('-') for cell in documented[detector]] == works, detector
