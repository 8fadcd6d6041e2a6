"""Rows of class weights that are of no class survive fine-tuning on other classes."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from mmdet_stable.engine.hooks import FineTuneClassesHook
from tests.models.detectors.test_stable_deformable_detr import ONE_TO_MANY, TWO_STAGE
from tests.utils import ROOT, STABLE_DINO, build, samples, shrink, tiny_model_cfg

DEFORMABLE = 'mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'
THEIRS = ('c', 'x', 'y', 'z', 'b', 'u', 'v')


def fine_tune(model, trained, ours, theirs):
    """Load the weights of ``trained``, of classes ``theirs``, into ``model``, of classes ``ours`` as a runner would."""
    runner = SimpleNamespace(
        model=model,
        _resume=False,
        _train_loop=object.__new__(type('Loop', (BaseLoop,), {'run': None})),
        train_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=ours))),
        logger=MMLogger.get_instance('fine_tuning'),
    )
    meta = dict(dataset_meta=dict(classes=theirs)) if theirs else {}
    checkpoint = dict(state_dict=copy.deepcopy(trained.state_dict()), meta=meta)
    FineTuneClassesHook().after_load_checkpoint(runner, checkpoint)
    model.load_state_dict(checkpoint['state_dict'])


def two_stage(kind, num_classes, seed):
    overrides = dict(
        bbox_head=dict(type='StableDeformableDETRHead'), train_cfg=dict(assigner=dict(type='StableHungarianAssigner'))
    )
    if kind == 'DNDeformableDETR':
        overrides.update(type=kind, as_two_stage=True, dn_cfg=dict(num_groups=3))
    elif kind == 'HDeformableDETR':
        overrides.update(type=kind, one_to_many=ONE_TO_MANY)
    elif kind == 'DeformableDETR':  # mmdet's own, of mmdet's width
        cfg = get_config(TWO_STAGE).model
        shrink(cfg, width=256)
        cfg.bbox_head.num_classes = num_classes
    else:
        overrides.update(type=kind)
    if kind != 'DeformableDETR':
        config = DEFORMABLE if kind == 'DNDeformableDETR' else TWO_STAGE
        cfg = tiny_model_cfg(config, overrides, num_classes=num_classes, num_queries=20)
    return randomised(build(cfg), seed)


def randomised(model, seed):
    """A model as if trained: no two rows of a weight are equal, and classes differ in how often they are found."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


@torch.no_grad()
def proposals(model):
    """The 20 places (2, 20, 4) that queries start from."""
    torch.manual_seed(0)
    features = model.extract_feat(torch.randn(2, 3, 64, 96))
    encoder_inputs, _ = model.pre_transformer(features, samples((1, 1), (64, 96)))
    queries, _ = model.pre_decoder(**model.forward_encoder(**encoder_inputs))
    return queries['reference_points'][:, :20]


@pytest.mark.parametrize('theirs', [THEIRS, None], ids=['named', 'unnamed'])
@pytest.mark.parametrize(
    'ours', [('b', 'new', 'c'), THEIRS[::-1], tuple('abcdefghi')], ids=['fewer', 'as_many', 'more']
)
@pytest.mark.parametrize('kind', ['StableDeformableDETR', 'HDeformableDETR', 'DNDeformableDETR', 'DeformableDETR'])
def test_proposals_stay(kind, ours, theirs):
    """Row 0 of the encoder's class branch means "object", whatever the class of that name is in the decoder."""
    trained, model = two_stage(kind, 7, seed=1), two_stage(kind, len(ours), seed=2)
    expected = proposals(trained)
    assert not proposals(model).allclose(expected)
    fine_tune(model, trained, ours, theirs)
    assert proposals(model).equal(expected)
    if theirs:  # the decoder's rows go by name
        before, after = trained.bbox_head.cls_branches[0].weight, model.bbox_head.cls_branches[0].weight
        assert after[ours.index('c')].equal(before[0]) and after[ours.index('b')].equal(before[4])


def test_encoder_of_dino_goes_by_names():
    """Its proposals are scored class by class."""
    trained, model = (build(tiny_model_cfg(STABLE_DINO, num_classes=n), seed=n) for n in (7, 3))
    fine_tune(model, trained, ('b', 'new', 'c'), THEIRS)
    before, after = (m.bbox_head.cls_branches[-1].weight for m in (trained, model))
    assert after[0].equal(before[4]) and after[2].equal(before[0]) and not after[1].equal(before[1])


def softmax_detr(num_classes, seed):
    cfg = get_config('mmdet::detr/detr_r50_8xb2-150e_coco.py').model
    shrink(cfg)
    cfg.bbox_head.num_classes = num_classes
    return randomised(build(cfg), seed)


@pytest.mark.parametrize(
    'ours,theirs',
    [(THEIRS[::-1], THEIRS), (('b', 'new'), THEIRS), (('b', 'new'), None)],
    ids=['order', 'other', 'unnamed'],
)
def test_background_of_a_softmax_stays(ours, theirs):
    trained, model = softmax_detr(7, seed=1), softmax_detr(len(ours), seed=2)
    fresh = copy.deepcopy(model.bbox_head.fc_cls)
    fine_tune(model, trained, ours, theirs)
    before, after = trained.bbox_head.fc_cls, model.bbox_head.fc_cls
    assert after.weight[-1].equal(before.weight[-1]) and after.bias[-1] == before.bias[-1]
    if theirs is None:
        assert after.weight[:-1].equal(fresh.weight[:-1])
    elif len(ours) == len(theirs):
        assert after.weight.equal(torch.cat([before.weight[:-1].flip(0), before.weight[-1:]]))
    else:
        assert after.weight[0].equal(before.weight[4]) and after.weight[1].equal(fresh.weight[1])


def mask_dino(num_classes, softmax, seed):
    cfg = Config.fromfile(ROOT / 'configs' / 'mask_dino' / 'mask_dino_r50_12e.py').model
    shrink(cfg)
    cfg.bbox_head.num_classes = num_classes
    if softmax:
        weights = [1.0] * num_classes + [0.1]
        cfg.bbox_head.loss_cls = dict(type='CrossEntropyLoss', loss_weight=4.0, class_weight=weights)
    return randomised(build(cfg), seed)


@pytest.mark.parametrize('softmax', [False, True], ids=['sigmoid', 'softmax'])
def test_rows_of_mask_dino(softmax):
    """Those of its one class branch and of its denoising queries; a softmax's background stays."""
    trained, model = mask_dino(7, softmax, seed=1), mask_dino(3, softmax, seed=2)
    fresh = copy.deepcopy(model.bbox_head.predictor.cls)
    fine_tune(model, trained, ('b', 'new', 'c'), THEIRS)
    before, after = trained.bbox_head.predictor, model.bbox_head.predictor
    for parameter in ('weight', 'bias'):
        old, new = getattr(before.cls, parameter), getattr(after.cls, parameter)
        assert new[0].equal(old[4]) and new[2].equal(old[0]) and new[1].equal(getattr(fresh, parameter)[1])
        assert len(new) == 3 + softmax and (not softmax or new[-1].equal(old[-1]))
    labels = model.dn_query_generator.label_embedding.weight, trained.dn_query_generator.label_embedding.weight
    assert labels[0][0].equal(labels[1][4]) and labels[0][2].equal(labels[1][0])
    assert after.reg.layers[0].weight.equal(before.reg.layers[0].weight)


def test_a_class_is_not_taken_for_background():
    """From a detector that scores by sigmoids, whose last row is a class."""
    trained, model = softmax_detr(7, seed=1), softmax_detr(2, seed=2)
    head = trained.bbox_head
    head.fc_cls = nn.Linear(head.embed_dims, 7)
    fresh = copy.deepcopy(model.bbox_head.fc_cls)
    fine_tune(model, trained, ('b', 'new'), THEIRS)
    assert model.bbox_head.fc_cls.weight[0].equal(head.fc_cls.weight[4])
    assert model.bbox_head.fc_cls.weight[1:].equal(fresh.weight[1:])
