import copy
import re

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from mmdet_stable.models.layers import DenoisingQueries
from mmdet_stable.structures import BatchTargets, DenoisingLayout
from tests.utils import (
    build,
    data_sample,
    golden,
    golden_samples,
    load_reference_weights,
    samples,
    tensor,
    tiny_model_cfg,
)

DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
SWITCHED_OFF = dict(
    encoder=dict(fusion=None),
    positional_encoding=dict(offset=0.0, temperature=20),
    bbox_head=dict(
        target_rescale=None,
        dn_cls_loss_weight=None,
        loss_cls=dict(_delete_=True, type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ]
        )
    ),
    test_cfg=dict(nms=None),
    dn_cfg=dict(_delete_=True, **get_config(DINO).model.dn_cfg),
)


def no_ground_truth(data):
    for image in range(2):
        data.setdefault(f'gt_labels_{image}', np.zeros(0, np.int64))
        data.setdefault(f'gt_boxes_{image}', np.zeros((0, 4), np.float32))
    return data


def assert_close_to_largest(value, reference, tolerance, name=''):
    np.testing.assert_allclose(
        value.detach(), reference, rtol=0, atol=tolerance * np.abs(reference).max(), err_msg=name
    )


@pytest.mark.parametrize(
    'name,fusion', [('stable_dino_forward', dict(type='DenseMemoryFusion')), ('dino_forward_nofusion', None)]
)
def test_golden_forward(name, fusion):
    """Every layer's logits and boxes, the memory and the proposals, at 1e-5 of the largest entry."""
    data = no_ground_truth(golden(name))
    model = build(tiny_model_cfg(overrides=dict(encoder=dict(fusion=fusion))))
    load_reference_weights(model, data)
    model.eval()
    feats = [tensor(data[f'feats_{level}']) for level in range(3)]
    data_samples = golden_samples(data)
    with torch.no_grad():
        encoder_inputs, _ = model.pre_transformer(feats, data_samples)
        memory = model.forward_encoder(**encoder_inputs)['memory']
        states = model.forward_transformer(feats, data_samples)
        logits, boxes = model.bbox_head(**states)
    assert_close_to_largest(memory, data['out.memory'], 1e-5)
    assert_close_to_largest(states['references'][0], data['out.init_reference'], 1e-5)
    assert_close_to_largest(logits, data['out.pred_logits_layers'], 1e-5)
    assert_close_to_largest(boxes, data['out.pred_boxes_layers'], 1e-5)


@pytest.mark.parametrize(
    'name,fusion', [('stable_dino_forward', dict(type='DenseMemoryFusion')), ('dino_forward_nofusion', None)]
)
def test_golden_detections(name, fusion):
    """The 15 best boxes of each image, before NMS. The reference tests without padding masks."""
    data = no_ground_truth(golden(name))
    model = build(tiny_model_cfg(overrides=dict(encoder=dict(fusion=fusion), test_cfg=dict(nms=None))))
    load_reference_weights(model, data)
    model.eval()
    data_samples = golden_samples(data)
    for sample in data_samples:
        sample.set_metainfo(dict(img_shape=sample.batch_input_shape))
    with torch.no_grad():
        states = model.forward_transformer([tensor(data[f'feats_{level}']) for level in range(3)], data_samples)
        results = model.bbox_head.predict(**states, batch_data_samples=data_samples)
    for image, result in enumerate(results):
        height, width = data_samples[image].img_shape
        boxes = data[f'eval_nomask.post_boxes_xyxy_{image}'].clip(0, np.array([width, height] * 2, np.float32))
        np.testing.assert_allclose(result.scores, data[f'eval_nomask.post_scores_{image}'], rtol=1e-5)
        np.testing.assert_array_equal(result.labels, data[f'eval_nomask.post_labels_{image}'])
        np.testing.assert_allclose(result.bboxes, boxes, rtol=0, atol=1e-3)  # pixels; the reference does not clip


def test_golden_training_step(monkeypatch):
    """Every loss term of the reference's training step from its stored denoising queries, and the gradients."""
    data = golden('stable_dino_train')
    model = build(tiny_model_cfg())
    load_reference_weights(model, data)
    model.train()
    feats = [tensor(data[f'feats_{level}']).requires_grad_() for level in range(3)]
    data_samples = golden_samples(data)
    groups, group_size = int(data['dn.dn_num']), int(data['dn.single_padding'])
    num_gts = tuple(len(sample.gt_instances) for sample in data_samples)
    layout = DenoisingLayout(groups, group_size // 2, num_gts, with_negatives=True)
    content, boxes = tensor(data['dn.input_query_label']), tensor(data['dn.input_query_bbox_unact'])
    monkeypatch.setattr(model.dn_query_generator, 'forward', lambda _: DenoisingQueries(content, boxes, layout))
    head_inputs = model.forward_transformer(feats, data_samples)
    assert head_inputs['plan'].attention_mask().tolist() == data['dn.attn_mask'].tolist()
    losses = model.bbox_head.loss(**head_inputs, batch_data_samples=data_samples)

    assert len(losses) == 3 * 7
    for term, ours, rtol in (
        ('loss_class', 'loss_cls', 1e-5),
        ('loss_bbox', 'loss_bbox', 1e-5),
        ('loss_giou', 'loss_iou', 3e-4),
    ):
        for suffix, prefix in {
            '': '',
            '_0': 'd0.',
            '_1': 'd1.',
            '_enc': 'enc_',
            '_dn': 'dn_',
            '_dn_0': 'd0.dn_',
            '_dn_1': 'd1.dn_',
        }.items():
            np.testing.assert_allclose(
                losses[prefix + ours].detach(), data[f'loss_weighted.{term}{suffix}'], rtol=rtol, err_msg=prefix + ours
            )
    sum(losses.values()).backward()
    names = {
        'transformer.level_embeds': model.level_embed,
        'transformer.encoder.fusion_layer.0.weight': model.encoder.fusion.fusion.proj.weight,
        'class_embed.0.weight': model.bbox_head.cls_branches[0].weight,
        'class_embed.3.weight': model.bbox_head.cls_branches[3].weight,
        'bbox_embed.0.layers.2.weight': model.bbox_head.reg_branches[0][4].weight,
        'bbox_embed.3.layers.2.weight': model.bbox_head.reg_branches[3][4].weight,
        'transformer.tgt_embed.weight': model.query_embedding.weight,
        'transformer.enc_output.weight': model.memory_trans_fc.weight,
        **{f'feats_{level}': feat for level, feat in enumerate(feats)},
    }
    for name, value in names.items():
        # The IoU's epsilon (see the golden notes) moves targets and GIoU by about 1e-4.
        assert_close_to_largest(value.grad, data[f'grad.{name}'], 3e-4, name)


def test_switched_off_it_is_mmdets_dino():
    """With FocalLoss, its cost and no fusion: mmdet's outputs, losses and gradients, from mmdet's own checkpoint."""
    sizes = dict(width=256, num_heads=8)
    theirs = build(tiny_model_cfg(DINO, **sizes))
    for name, offsets in theirs.named_parameters():
        # As initialised, points lie on pixel centres: a kink of bilinear sampling, where rounding picks the slope.
        if name.endswith('sampling_offsets.bias'):
            offsets.data += torch.rand_like(offsets)
    ours = build(tiny_model_cfg(overrides=copy.deepcopy(SWITCHED_OFF), **sizes), seed=1)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 96, 128)
    batch = samples((4, 0, 9))

    for model in (ours, theirs):
        model.train()
        torch.manual_seed(5)  # of the denoising queries
        model.losses = model.loss(images.clone(), copy.deepcopy(batch))
        sum(model.losses.values()).backward()
    assert set(ours.losses) == set(theirs.losses)
    for name, value in theirs.losses.items():
        torch.testing.assert_close(ours.losses[name].reshape(()), value.reshape(()), rtol=1e-5, atol=1e-6, msg=name)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5 * b.grad.abs().max().item() + 1e-7, msg=name)

    with torch.no_grad():
        results = [model.eval().predict(images, copy.deepcopy(batch)) for model in (ours, theirs)]
    for a, b in zip(*results):
        assert torch.equal(a.pred_instances.labels, b.pred_instances.labels)
        torch.testing.assert_close(a.pred_instances.scores, b.pred_instances.scores)
        torch.testing.assert_close(a.pred_instances.bboxes, b.pred_instances.bboxes)


def test_position_supervision_with_f1_of_one_is_focal_loss():
    """The other way to switch PSL and PMC off, within our own classes."""
    own = copy.deepcopy(SWITCHED_OFF)
    off = copy.deepcopy(SWITCHED_OFF)  # merging takes "_delete_" out of what it is given
    own['bbox_head']['loss_cls'] = dict(_delete_=True, type='PositionSupervisedLoss', f1='1', loss_weight=1.0)
    own['train_cfg']['assigner']['match_costs'][0] = dict(type='PositionModulatedFocalCost', f2_power=0, weight=2.0)
    losses = []
    for overrides in (off, own):
        model = build(tiny_model_cfg(overrides=overrides)).train()
        torch.manual_seed(5)
        losses.append(model.loss(torch.ones(2, 3, 96, 128), samples((3, 2))))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, msg=name)


def test_stock_checkpoint_misses_only_the_fusion():
    stock, ours = build(tiny_model_cfg(DINO, width=32)), build(tiny_model_cfg(), seed=1)
    result = ours.load_state_dict(stock.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys and all(key.startswith('encoder.fusion.') for key in result.missing_keys)


@pytest.mark.parametrize('num_gts', [(3, 5), (0, 2), (0, 0), (1, 40)], ids=str)
def test_every_parameter_gets_a_gradient(num_gts):
    """Also without any ground truth, so that DDP needs no search for unused parameters."""
    model = build(tiny_model_cfg()).train()
    losses = model.loss(torch.randn(2, 3, 96, 128), samples(num_gts))
    assert all(value.isfinite().all() for value in losses.values())
    sum(losses.values()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_batch_as_large_as_the_number_of_queries():
    """mmdet compares the batch size with num_queries; nothing may depend on it."""
    model = build(tiny_model_cfg(num_queries=2, overrides=dict(test_cfg=dict(max_per_img=2))))
    batch, images = samples((0, 0)), torch.randn(2, 3, 96, 128)
    model.eval()
    with torch.no_grad():
        both = model.predict(images, copy.deepcopy(batch))
        alone = [model.predict(images[i : i + 1], copy.deepcopy(batch[i : i + 1]))[0] for i in range(2)]
    for a, b in zip(both, alone):
        torch.testing.assert_close(a.pred_instances.scores, b.pred_instances.scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('width,heads', [(64, 4), (96, 8), (256, 8)])
@pytest.mark.parametrize('fusion', ['SimpleMemoryFusion', 'UShapedMemoryFusion', 'DenseMemoryFusion'])
def test_any_width_trains_and_predicts(width, heads, fusion):
    model = build(
        tiny_model_cfg(
            overrides=dict(encoder=dict(fusion=dict(type=fusion))), width=width, num_heads=heads, num_layers=2
        )
    ).train()
    losses = model.loss(torch.randn(1, 3, 64, 64), samples((2,), (64, 64)))
    assert sum(losses.values()).isfinite()
    results = model.eval().predict(torch.randn(1, 3, 64, 64), samples((0,), (64, 64)))
    assert results[0].pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize('fusion', ['SimpleMemoryFusion', 'UShapedMemoryFusion', 'DenseMemoryFusion'])
def test_padding_does_not_change_the_memory(fusion):
    """Features of an image alone, and padded in a batch, give the same fused memory. (The decoder differs by DINO's
    design: it encodes boxes relative to the padded batch.)"""
    model = build(tiny_model_cfg(overrides=dict(encoder=dict(fusion=dict(type=fusion))))).eval()
    feats = [torch.randn(1, 32, 12, 16), torch.randn(1, 32, 6, 8), torch.randn(1, 32, 3, 4)]
    padded = [torch.nn.functional.pad(feat, (0, feat.shape[3] // 2, 0, feat.shape[2] // 3 * 2)) for feat in feats]
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    with torch.no_grad():
        alone, in_batch = (
            model.forward_encoder(**model.pre_transformer(f, [sample])[0])
            for f, sample in (
                (feats, data_sample(*empty, (96, 128))),
                (padded, data_sample(*empty, (96, 128), (160, 192))),
            )
        )
    valid = ~in_batch['memory_mask'][0]
    torch.testing.assert_close(in_batch['memory'][0][valid], alone['memory'][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    'nms,scores',
    [
        (None, [0.9526, 0.8808, 0.7311]),
        (dict(type='nms', iou_threshold=0.8), [0.9526, 0.7311]),
        (dict(type='soft_nms', iou_threshold=0.8, min_score=0.0), None),
    ],
    ids=['none', 'nms', 'soft'],
)
def test_nms_by_config(nms, scores):
    """Two boxes of one class overlap by 0.98; the third is elsewhere and of another class."""
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.41, 0.4], [0.2, 0.2, 0.1, 0.1]])
    logits = torch.tensor([[3.0, -9], [2.0, -9], [-9, 1.0]])
    head = build(tiny_model_cfg(overrides=dict(test_cfg=dict(nms=nms)), num_classes=2)).bbox_head
    head.test_cfg['max_per_img'] = 3
    result = head._predict_by_feat_single(logits, boxes, dict(img_shape=(100, 100), scale_factor=(1.0, 1.0)))
    if scores is None:
        assert result.scores[2] < 0.1  # lowered by the overlap, from 0.88
    else:
        torch.testing.assert_close(result.scores, torch.tensor(scores), atol=1e-4, rtol=0)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_of_half_precision_scores(dtype):
    """As autocast hands them over: half-precision logits with float32 boxes, and the other way round."""
    head = build(tiny_model_cfg()).bbox_head
    meta = dict(img_shape=(100, 100), scale_factor=(1.0, 1.0))
    logits, boxes = torch.randn(20, 7), torch.rand(20, 4) * 0.4 + 0.2
    expected = head._predict_by_feat_single(logits, boxes, meta)
    for scores, places in ((logits.to(dtype), boxes), (logits.to(dtype), boxes.to(dtype))):
        result = head._predict_by_feat_single(scores, places, meta)
        assert result.scores.dtype == torch.float32 and abs(len(result) - len(expected)) <= 2


class TestErrors:
    def test_other_assigner(self):
        with pytest.raises(Exception, match=r'model.train_cfg.assigner.type="StableHungarianAssigner"'):
            build(tiny_model_cfg(overrides=dict(train_cfg=dict(assigner=dict(type='HungarianAssigner')))))

    def test_softmax(self):
        with pytest.raises(Exception, match='StableDINOHead scores each class by a sigmoid'):
            loss = dict(_delete_=True, type='CrossEntropyLoss', use_sigmoid=False)
            build(tiny_model_cfg(overrides=dict(bbox_head=dict(loss_cls=loss, target_rescale=None))))

    def test_rescaling_without_position_supervision(self):
        loss = dict(_delete_=True, type='FocalLoss', use_sigmoid=True)
        with pytest.raises(Exception, match="target_rescale='one' rescales the targets of PositionSupervisedLoss"):
            build(tiny_model_cfg(overrides=dict(bbox_head=dict(loss_cls=loss))))

    def test_unknown_f1(self):
        with pytest.raises(Exception, match="unknown f1='s~2'; known are '1', 's"):
            build(tiny_model_cfg(overrides=dict(bbox_head=dict(loss_cls=dict(f1='s~2')))))

    def test_different_widths(self):
        with pytest.raises(
            Exception, match=r"embed_dims of the model differ: {'encoder': 32, 'decoder': 32, 'bbox_head': 64, "
        ):
            build(tiny_model_cfg(overrides=dict(bbox_head=dict(embed_dims=64))))

    def test_checkpoint_of_other_shapes(self):
        model, other = build(tiny_model_cfg()), build(tiny_model_cfg(num_classes=3), seed=1)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(
            ValueError, match=r'bbox_head.cls_branches.0.weight: \(3, 32\) in the checkpoint, \(7, 32\)'
        ):
            _load_checkpoint_to_model(model, dict(state_dict=other.state_dict()))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_config_only_changes_what_differs():
    """The full-size config builds, without weights, and keeps mmdet's data, schedule and augmentation."""
    from mmengine.config import Config

    from tests.utils import ROOT, STABLE_DINO

    ours, theirs = Config.fromfile(ROOT / STABLE_DINO), get_config(DINO)
    assert ours.optim_wrapper.optimizer.pop('fused')  # the same steps
    assert ours.optim_wrapper.paramwise_cfg.pop('norm_decay_mult') == 0  # as in the released code
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_evaluator'):
        assert re.sub(r", '_scope_': 'mmdet'", '', str(ours[key])) == str(theirs[key])
    ours.model.backbone.init_cfg = None
    model = MODELS.build(ours.model)
    assert model.encoder.fusion.fusion.proj.weight.shape == (256, 7 * 256)


def test_compiled_layers_compute_the_same():
    """Also at another size of images and number of queries, for which layers are compiled anew."""
    plain = build(tiny_model_cfg()).train()
    compiled = build(tiny_model_cfg(overrides=dict(compile_layers=dict(backend='eager')))).train()
    compiled.load_state_dict(plain.state_dict())
    layers = [*compiled.encoder.layers, *compiled.decoder.layers]
    assert all(layer._compiled_call_impl for layer in layers)
    for size, num_gts in (((64, 96), (3, 1)), ((96, 64), (2, 5))):
        images, batch = torch.randn(2, 3, *size), samples(num_gts, size)
        for model in (plain, compiled):
            model.zero_grad()
            torch.manual_seed(5)  # of the denoising queries
            model.losses = model.loss(images.clone(), copy.deepcopy(batch))
            sum(model.losses.values()).sum().backward()
        for name, value in plain.losses.items():
            torch.testing.assert_close(compiled.losses[name], value, msg=name)
        for (name, a), b in zip(plain.named_parameters(), compiled.parameters()):
            torch.testing.assert_close(
                b.grad, a.grad, rtol=1e-3, atol=1e-5 * a.grad.abs().max().item() + 1e-7, msg=name
            )


def test_targets_are_padded_once_a_step(monkeypatch):
    calls = []
    pad = BatchTargets.from_instances
    monkeypatch.setattr(BatchTargets, 'from_instances', lambda *args: calls.append(args) or pad(*args))
    build(tiny_model_cfg()).train().loss(torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96)))
    assert len(calls) == 1


def test_compiling_excludes_checkpointing():
    overrides = dict(compile_layers=dict(), encoder=dict(num_cp=1))
    with pytest.raises(ValueError, match='num_cp=1: torch does not compile layers under activation checkpointing'):
        build(tiny_model_cfg(overrides=overrides))


@pytest.mark.parametrize('num_gts', [(3, 1), (0, 0), (500, 2)], ids=str)
def test_denoising_queries_of_our_own(num_gts):
    """The generator of DN-DETR in place of mmdet's: the same weights, and bounded in a crowded image."""
    model = build(tiny_model_cfg(overrides=dict(dn_cfg=dict(num_queries=20)))).train()
    theirs = build(tiny_model_cfg(overrides=dict(dn_cfg=copy.deepcopy(SWITCHED_OFF['dn_cfg']))))
    assert model.state_dict().keys() == theirs.state_dict().keys()
    losses = model.loss(torch.randn(2, 3, 64, 96), samples(num_gts, (64, 96)))
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
