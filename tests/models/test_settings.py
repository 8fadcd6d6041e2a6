"""Settings that cannot work are errors when the model is built, with key, value and remedy, all of them at once."""

import copy
import math

import pytest
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from mmdet_stable.engine.config_checks import check_model
from mmdet_stable.models.settings import check_detector, check_head, check_weights, scores_by_softmax
from tests.models.detectors.test_dn_detr import dn_detr_cfg
from tests.utils import ROOT, build, build_head, tiny_model_cfg

SOFTMAX = dict(type='CrossEntropyLoss', loss_weight=1.0)
PMC = dict(type='PositionModulatedFocalCost', weight=2.0)


def detector(**changes):
    """Settings of a detector that can work, and changes by dotted keys, given with __ in place of the dots."""
    settings = dict(
        num_queries=20,
        num_feature_levels=3,
        neck=dict(type='ChannelMapper', in_channels=[1, 2, 3], num_outs=3),
        encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=3))),
        decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=3))),
        bbox_head=dict(num_classes=7, loss_cls=dict(type='PositionSupervisedLoss', loss_weight=6.0)),
        train_cfg=dict(assigner=dict(match_costs=[PMC, dict(type='IoUCost')])),
        test_cfg=dict(max_per_img=140, nms=dict(type='nms', iou_threshold=0.8)),
    )
    cfg = Config(settings)
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()}, allow_list_keys=True)
    return cfg.to_dict()


@pytest.mark.parametrize(
    'changes',
    [
        {},
        dict(num_queries=1, bbox_head__num_classes=1, test_cfg__max_per_img=1),
        dict(test_cfg=None, train_cfg=None),
        dict(test_cfg__max_per_img=None, num_queries=1),
        dict(test_cfg__nms=None),
        dict(test_cfg__nms__iou_threshold=0),
        dict(test_cfg__nms__iou_threshold=1.0),
        dict(test_cfg__nms=dict(_delete_=True, type='soft_nms')),
        dict(bbox_head__loss_cls__loss_weight=0),
        dict(neck__num_outs=None),
        dict(neck__type='FPN'),
        dict(num_feature_levels=4, neck__num_outs=4, encoder=None, decoder=None),
        dict(neck=dict(_delete_=True, num_levels=3), encoder=None, decoder__layer_cfg__cross_attn_cfg__num_levels=3),
    ],
    ids=str,
)
def test_what_can_work(changes):
    check_detector('Model', detector(**changes))


@pytest.mark.parametrize(
    'changes,message',
    [
        (dict(num_queries=0), r'model.num_queries=0: at least 1 is needed; set it to'),
        (dict(num_queries=-1), r'model.num_queries=-1: at least 1'),
        (dict(num_queries=20.0), r'model.num_queries=20.0: '),
        (dict(bbox_head__num_classes=0), r'model.bbox_head.num_classes=0: at least 1'),
        (dict(test_cfg__max_per_img=0), r'model.test_cfg.max_per_img=0: at least 1'),
        (dict(test_cfg__max_per_img=141), r'max_per_img=141: .*num_classes=7 is 140; set it to 140 or less'),
        (dict(bbox_head__loss_cls__loss_weight=-1), r'model.bbox_head.loss_cls.loss_weight=-1: set it to a number'),
        (dict(bbox_head__loss_iou=dict(loss_weight=math.nan)), r'loss_iou.loss_weight=nan: '),
        (dict(bbox_head__loss_cls__reduction='sum'), r"loss_cls.reduction='sum': .*; leave it out"),
        (dict(bbox_head__loss_bbox=dict(reduction='none')), r"model.bbox_head.loss_bbox.reduction='none': "),
        (dict(bbox_head__dn_cls_loss_weight=-0.1), r'model.bbox_head.dn_cls_loss_weight=-0.1: '),
        (dict(train_cfg__assigner__match_costs=[dict(PMC, weight=-2.0)]), r'match_costs\[0\].weight=-2.0: '),
        (dict(train_cfg__assigner=dict(_delete_=True, match_costs=dict(PMC, weight=-2.0))), r'\[0\].weight=-2.0: '),
        (dict(test_cfg__nms__iou_threshold=1.5), r'test_cfg.nms.iou_threshold=1.5: set it to a number from 0 to 1'),
        (dict(test_cfg__nms__iou_threshold=-0.1), r'test_cfg.nms.iou_threshold=-0.1: '),
        (dict(test_cfg__nms=dict(_delete_=True, type='nms', iou_thr=80)), r'iou_threshold=80: '),
        (dict(test_cfg__nms=dict(_delete_=True, type='nms')), r'iou_threshold is missing'),
        (dict(test_cfg__nms__type='softnms'), r"nms.type='softnms': known are 'nms', 'soft_nms'"),
        (dict(num_feature_levels=4), r'num_feature_levels=4, .*num_outs=3: .* set all of them to the same'),
        (dict(neck__num_outs=5), r'model.neck.num_outs=5: numbers of feature maps differ'),
        (dict(neck__num_outs=2, num_feature_levels=2), r'num_feature_levels=2, '),
        (dict(encoder__layer_cfg__self_attn_cfg__num_levels=4), r'encoder.layer_cfg.self_attn_cfg.num_levels=4, '),
        (dict(decoder=None), r'decoder.layer_cfg.cross_attn_cfg.num_levels=4, '),
        (dict(bbox_head__loss_cls=SOFTMAX, test_cfg__max_per_img=9), r'match_costs\[0\].type=.*scores by a softmax'),
        (dict(bbox_head__loss_cls=None, test_cfg__max_per_img=9), r"loss_cls.type='CrossEntropyLoss' demands; set"),
        (
            dict(bbox_head__loss_cls=SOFTMAX, train_cfg=None, test_cfg__max_per_img=21),
            r'as model.num_queries=20; set it to 20',
        ),
    ],
    ids=str,
)
def test_what_cannot(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_detector('Model', detector(**changes))
    assert len(str(caught.value).splitlines()) == 2, 'one fault, one line'


def test_all_faults_are_listed_at_once():
    with pytest.raises(ValueError, match='Model cannot work with these settings') as caught:
        check_detector('Model', detector(num_queries=0, bbox_head__num_classes=0, test_cfg__nms__iou_threshold=2))
    assert len(str(caught.value).splitlines()) == 4


def test_softmax_is_what_mmdet_takes_it_for():
    for loss in (SOFTMAX, dict(SOFTMAX, use_sigmoid=True), dict(type='FocalLoss'), dict(type='PositionSupervisedLoss')):
        assert scores_by_softmax(loss) != MODELS.build(copy.deepcopy(loss)).use_sigmoid
    assert scores_by_softmax(None)


DETECTORS = {
    'StableDINO': lambda changes: tiny_model_cfg(overrides=changes),
    'HDeformableDETR': lambda changes: tiny_model_cfg('configs/deformable_detr/h_deformable_detr_r50_12e.py', changes),
    'DNDETR': lambda changes: ConfigDict(Config._merge_a_into_b(changes, dn_detr_cfg())),
    'DABDeformableDETR': lambda changes: tiny_model_cfg(
        'configs/deformable_detr/dab_deformable_detr_r50_12e.py', changes
    ),
}


@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.parametrize(
    'changes,message',
    [
        (dict(num_queries=0), 'model.num_queries=0'),
        (dict(num_queries=-1), 'model.num_queries=-1'),
        (dict(bbox_head=dict(num_classes=0)), 'model.bbox_head.num_classes=0'),
        (dict(test_cfg=dict(max_per_img=141)), 'model.test_cfg.max_per_img=141'),
        (dict(test_cfg=dict(nms=dict(type='nms', iou_threshold=8))), 'model.test_cfg.nms.iou_threshold=8'),
        (dict(bbox_head=dict(loss_bbox=dict(loss_weight=-5.0))), 'model.bbox_head.loss_bbox.loss_weight=-5.0'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_detectors_refuse_to_be_built(name, changes, message):
    cfg = DETECTORS[name](changes)
    assert cfg.type == name
    with pytest.raises(ValueError, match=message):
        build(cfg)


@pytest.mark.parametrize(
    'name,head,fitting',
    [
        ('StableDINO', 'StableDeformableDETRHead', 'StableDINOHead'),
        ('StableDINO', 'MaskDINOHead', 'StableDINOHead'),
        ('HDeformableDETR', 'StableDABDETRHead', 'StableDINOHead, StableDeformableDETRHead'),
        ('HDeformableDETR', 'DINOHead', 'StableDINOHead, StableDeformableDETRHead'),
        ('HDeformableDETR', 'MaskDINOHead', 'StableDINOHead, StableDeformableDETRHead'),
        ('DABDeformableDETR', 'MaskDINO', 'StableDINOHead, StableDeformableDETRHead'),
        ('DNDETR', 'StableDETRHead', 'StableDABDETRHead'),
    ],
)
def test_heads_of_another_kind(name, head, fitting):
    cfg = DETECTORS[name]({})
    cfg.bbox_head.type = head
    with pytest.raises(ValueError, match=f'model.bbox_head.type={head!r}: {name} does not .* that fit are {fitting}$'):
        build(cfg)


def test_levels_of_a_detector():
    with pytest.raises(ValueError, match=r'model.num_feature_levels=4, .*model.neck.num_outs=3'):
        build(tiny_model_cfg(overrides=dict(num_feature_levels=4)))


def test_heads_losses_and_costs_refuse_on_their_own():
    """As parts of mmdet's detectors."""
    with pytest.raises(ValueError, match=r'StableDINOHead cannot .*\n.*dn_cls_loss_weight=-1.0'):
        build_head(dn_cls_loss_weight=-1.0)
    with pytest.raises(ValueError, match=r"StableDINOHead cannot .*\n.*loss_iou.reduction='sum'"):
        build_head(loss_iou=dict(reduction='sum'))
    with pytest.raises(ValueError, match=r'model.bbox_head.num_classes=0'):
        check_head('Head', dict(num_classes=0))
    with pytest.raises(ValueError, match=r'PositionSupervisedLoss cannot .*\n.*loss_weight=-6.0'):
        MODELS.build(dict(type='PositionSupervisedLoss', loss_weight=-6.0))
    with pytest.raises(ValueError, match=r'PositionModulatedFocalCost cannot .*\n.*weight=-2.0'):
        TASK_UTILS.build(dict(PMC, weight=-2.0))
    with pytest.raises(ValueError, match=r'StableHungarianAssigner cannot .*\n.*IoUCost.weight=-1.0'):
        TASK_UTILS.build(dict(type='StableHungarianAssigner', match_costs=[dict(type='IoUCost', weight=-1.0)]))
    check_weights('any', [('weight', 0), ('of another class', None)])


@pytest.mark.parametrize(
    'config,changes,message',
    [
        ('detr/detr_r50_8xb2-150e_coco.py', {'train_cfg.assigner.match_costs.0': PMC}, 'scores by a softmax'),
        ('detr/detr_r50_8xb2-150e_coco.py', {'test_cfg.max_per_img': 101}, 'as model.num_queries=100; set it to 100'),
        ('dino/dino-4scale_r50_8xb2-12e_coco.py', {'num_queries': 3}, 'max_per_img=300: .* is 240'),
        (
            'dino/dino-4scale_r50_8xb2-12e_coco.py',
            {'train_cfg.assigner.match_costs.1.weight': -1.0},
            r'\[1\].weight',
        ),
    ],
)
def test_tools_check_mmdets_own_detectors(config, changes, message):
    cfg = get_config(f'mmdet::{config}')
    check_model(cfg)
    for cost in cfg.model.train_cfg.assigner.match_costs[:1]:
        cost['_delete_'] = True
    cfg.merge_from_dict({f'model.{key}': ConfigDict(v) if isinstance(v, dict) else v for key, v in changes.items()})
    with pytest.raises(ValueError, match=message):
        check_model(cfg)


def test_tools_leave_other_models_alone():
    check_model(Config(dict(model=dict(type='FasterRCNN', test_cfg=dict(max_per_img=-1)))))
    check_model(Config.fromfile(ROOT / 'configs' / 'demo_digits.py'))
