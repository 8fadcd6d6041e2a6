"""DN-DETR against the reference implementation, and what denoising must never do."""

import pytest
import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.hub import get_config
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_stable.models.layers import DenoisingQueries
from mmdet_stable.structures import BatchTargets, DenoisingLayout
from tests.utils import (
    DAB_DETR_NAMES,
    build,
    close,
    golden,
    golden_samples,
    load_reference_weights,
    samples,
    shrink,
    tensor,
    unmasked_samples,
)


def dn_detr_cfg(in_channels=64, dn_cfg=None, num_classes=7, **model):
    """mmdet's DAB-DETR as DN-DETR by config alone, with 15 queries and 7 classes, 32 wide."""
    cfg = get_config('mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py').model
    shrink(cfg)
    cfg.update(type='DNDETR', num_queries=15, dn_cfg=dn_cfg or dict(num_groups=3), **model)
    cfg.encoder.num_layers = cfg.decoder.num_layers = 3
    cfg.neck.in_channels = [in_channels]
    cfg.bbox_head.update(type='StableDABDETRHead', num_classes=num_classes)
    cfg.train_cfg.assigner.type = 'StableHungarianAssigner'
    cfg.test_cfg.max_per_img = 10
    return cfg


@pytest.fixture(scope='module')
def reference():
    data = golden('dn_detr_forward')
    model = build(dn_detr_cfg(in_channels=24))
    load_reference_weights(model, data, DAB_DETR_NAMES)
    return data, model


def recorded_queries(data):
    """What the generator gave in the reference, where padding slots count as background."""
    layout = DenoisingLayout(int(data['train.groups']), int(data['train.max_gt']), (3, 2))
    return DenoisingQueries(tensor(data['train.dn_label_query']), tensor(data['train.dn_box_query_unact']), layout)


def check_losses(losses, data):
    names = {'loss_cls': 'class', 'loss_bbox': 'bbox', 'loss_iou': 'giou'}
    assert len(losses) == 18
    for key, value in losses.items():
        parts = key.split('.')
        layer = f'_{parts[0][1:]}' if len(parts) == 2 else ''
        dn = '_dn' if 'dn_' in parts[-1] else ''
        expected = data[f'loss_weighted.loss_{names[parts[-1].replace("dn_", "")]}{dn}{layer}']
        # The reference's GIoU has an epsilon of its own.
        torch.testing.assert_close(value, tensor(expected), rtol=1e-3 if 'iou' in key else 2e-5, atol=1e-6, msg=key)


def test_outputs_of_the_reference(reference):
    data, model = reference
    batch = unmasked_samples(data)
    with torch.no_grad():
        states = model.eval().forward_transformer(model.neck((tensor(data['feats_0']),)), batch)
        close(states['hidden_states'], data['eval.hidden_states'])
        close(states['references'], data['eval.references'])
        logits, boxes = model.bbox_head(**states)
        close(logits, data['eval.pred_logits_layers'])
        close(boxes, data['eval.pred_boxes_layers'])


def test_losses_and_gradients_of_the_reference(reference, monkeypatch):
    """From the recorded denoising queries. The reference's cross-attention sees the padding of images."""
    data, model = reference
    batch = golden_samples(data)
    monkeypatch.setattr(model.dn_query_generator, 'forward', lambda _: recorded_queries(data))
    decode = model.forward_decoder
    monkeypatch.setattr(model, 'forward_decoder', lambda **inputs: decode(**{**inputs, 'memory_mask': None}))
    model.train()
    feats = tensor(data['feats_0']).requires_grad_()
    states = model.forward_transformer(model.neck((feats,)), batch)
    assert states['plan'].attention_mask().tolist() == data['train.attn_mask'].tolist()
    losses = model.bbox_head.loss(**states, batch_data_samples=batch)
    check_losses(losses, data)
    sum(losses.values()).backward()
    difference = (feats.grad - tensor(data['grad.feats_0'])).norm() / tensor(data['grad.feats_0']).norm()
    assert difference < 1e-3


@pytest.fixture(scope='module')
def model():
    return build(dn_detr_cfg())


IMAGES = torch.randn(2, 3, 64, 96)


def grown(model):
    """Parameters that a training step gave a gradient."""
    return {name for name, value in model.named_parameters() if value.grad is not None and value.grad.isfinite().all()}


@pytest.mark.parametrize('num_gts', [(3, 1), (0, 0), (500, 1)], ids=str)
def test_every_parameter_learns(model, num_gts):
    model.train().zero_grad()
    batch = samples(num_gts, (64, 96))
    losses = model.loss(IMAGES, batch)
    assert len(losses) == 18 and all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert grown(model) == {name for name, value in model.named_parameters() if value.requires_grad}
    content = model.dn_query_generator(BatchTargets.from_samples(batch)).content
    assert content.shape[1] <= model.dn_query_generator.max_queries


def test_groups_and_matching_queries_do_not_see_denoising_queries(model, monkeypatch):
    """Changing one group changes its own outputs and no other query's, in any layer."""
    batch = samples((3, 1), (64, 96))
    queries = model.dn_query_generator(BatchTargets.from_samples(batch))
    outputs = []
    with torch.no_grad():
        for change in (0.0, 3.0):
            content = queries.content.clone()
            content[:, 3:6] += change
            changed = queries._replace(content=content)
            monkeypatch.setattr(model.dn_query_generator, 'forward', lambda _, changed=changed: changed)
            model.train()
            for module in model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()
            outputs.append(model.forward_transformer(model.extract_feat(IMAGES), batch)['hidden_states'])
    difference = (outputs[0] - outputs[1]).abs().amax((0, 3))
    assert (difference[0, 3:6] > 1e-3).all() and difference[1, 3] > 1e-3
    difference[:, 3:6] = 0
    assert not difference.any()


@pytest.mark.parametrize('position_supervised', [False, True])
def test_padding_slots_change_nothing(position_supervised, monkeypatch):
    """Neither what they see nor where they look counts; 'max_iou' would take the IoU of any query."""
    cfg = dn_detr_cfg()
    if position_supervised:
        cfg.bbox_head.update(loss_cls=dict(type='PositionSupervisedLoss'), target_rescale='max_iou')
    model = build(cfg).train()
    batch = samples((3, 1), (64, 96))
    content, boxes, layout = model.dn_query_generator(BatchTargets.from_samples(batch))
    padding = ~layout.shown('cpu')[..., None]
    exact = bbox_xyxy_to_cxcywh(batch[1].gt_instances.bboxes[0] / torch.tensor([96, 64, 96, 64]))
    results = []
    for change in (0.0, 5.0):
        places = torch.where(padding & (change > 0), exact.logit(), boxes)
        changed = DenoisingQueries(content + change * padding, places, layout)
        monkeypatch.setattr(model.dn_query_generator, 'forward', lambda _, changed=changed: changed)
        results.append(model.loss(IMAGES, batch))
    assert results[0] == results[1]


def count_operators(model, batch):
    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Counter() as counter:
        results = model.eval().predict(IMAGES, batch)
    return counter.count, [result.pred_instances for result in results]


def test_at_test_time_it_is_dab_detr(model):
    """The same outputs as DAB-DETR with one pattern, from its weights, in no more operations."""
    batch = samples((3, 1), (64, 96))
    plain = dn_detr_cfg()
    plain.pop('dn_cfg')
    plain.type, plain.bbox_head.type, plain.num_patterns = 'DABDETR', 'DABDETRHead', 1
    plain.train_cfg.assigner.type = 'HungarianAssigner'
    plain = build(plain)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith('dn_query_generator.')}
    state['patterns.weight'] = model.dn_query_generator.unknown_content[None]
    plain.load_state_dict(state)
    ours, theirs = count_operators(model, batch), count_operators(plain, batch)
    assert ours[0] <= theirs[0]
    for a, b in zip(ours[1], theirs[1]):
        assert a.labels.equal(b.labels)
        torch.testing.assert_close(a.scores, b.scores)  # attention by other kernels rounds otherwise
        torch.testing.assert_close(a.bboxes, b.bboxes, rtol=1e-5, atol=1e-3)


def test_wrong_settings():
    with pytest.raises(ValueError, match='num_patterns=3'):
        build(dn_detr_cfg(num_patterns=3))


@pytest.mark.parametrize('num_gts', [(3, 1), (0, 0)], ids=str)
def test_conditional_detr_learns_with_denoising(num_gts):
    """mmdet's Conditional DETR by config alone."""
    cfg = get_config('mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py').model
    cfg.update(type='DNConditionalDETR', num_queries=15, dn_cfg=dict(num_groups=3))
    cfg.backbone.update(depth=18, frozen_stages=-1, init_cfg=None)
    cfg.neck.in_channels = [512]
    cfg.encoder.num_layers = cfg.decoder.num_layers = 2
    cfg.bbox_head.type = 'StableConditionalDETRHead'
    cfg.train_cfg.assigner.type = 'StableHungarianAssigner'
    model = build(cfg).train()
    losses = model.loss(IMAGES, samples(num_gts, (64, 96)))
    assert set(losses) == {
        f'{d}{dn}loss_{t}' for d in ('d0.', '') for dn in ('dn_', '') for t in ('cls', 'bbox', 'iou')
    }
    sum(losses.values()).backward()
    assert grown(model) == {name for name, value in model.named_parameters() if value.requires_grad}
    assert len(model.eval().predict(IMAGES, samples(num_gts, (64, 96)))) == 2


def test_heads_that_do_not_know_the_layout_are_refused():
    cfg = dn_detr_cfg()
    cfg.bbox_head.type = 'DABDETRHead'
    with pytest.raises(ValueError, match='DABDETRHead cannot supervise the queries of DNQueryGenerator'):
        build(cfg)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    'settings',
    [
        dict(num_groups=2, indicator=False),
        dict(num_queries=20, negatives='far', box_noise='corners', box_noise_scale=1.0),
        dict(num_groups=2, isolate_groups=False, hide_denoising=False),
        dict(num_groups=2, ignore_padding=False),
    ],
    ids=['no_indicator', 'negatives', 'no_mask', 'padding'],
)
def test_settings_train_in_mixed_precision(settings, dtype):
    """One class, images of different sizes, and a batch of one."""
    model = build(dn_detr_cfg(dn_cfg=settings, num_classes=1)).train()
    batch = samples((2, 0), (64, 96), num_classes=1)
    batch[1].set_metainfo(dict(img_shape=(50, 70)))
    for part in (slice(0, 2), slice(0, 1)):
        with torch.autocast('cpu', dtype):
            losses = model.loss(IMAGES[part], batch[part])
        assert all(value.isfinite() for value in losses.values())
        sum(losses.values()).backward()
    assert all(
        value.grad.isfinite().all() for value in model.parameters() if value.requires_grad and value.grad is not None
    )
