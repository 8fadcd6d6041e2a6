"""H-DETR against the reference implementation, and Deformable-DETR with each of its options."""

import pytest
import torch

from mmdet_stable.structures import BatchTargets, DenoisingLayout, Matched, QueryPlan, Segment
from tests.utils import (
    STABLE_DINO,
    build,
    close,
    golden,
    golden_samples,
    load_reference_weights,
    samples,
    tensor,
    tiny_model_cfg,
    unmasked_samples,
)

TWO_STAGE = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
PLAIN = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
ONE_TO_MANY = dict(num_queries=24, num_copies=3, loss_weight=1.0)
IMAGES = torch.randn(2, 3, 64, 96)


def deformable(config=TWO_STAGE, detector='StableDeformableDETR', num_queries=10, **model):
    """mmdet's Deformable-DETR as one of ours by config alone, without dropout."""
    overrides = dict(
        type=detector,
        bbox_head=dict(type='StableDeformableDETRHead'),
        train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
        **model,
    )
    cfg = tiny_model_cfg(config, overrides, num_queries=num_queries)
    for coder in (cfg.encoder, cfg.decoder):
        coder.layer_cfg.self_attn_cfg.dropout = coder.layer_cfg.ffn_cfg.ffn_drop = 0.0
    cfg.decoder.layer_cfg.cross_attn_cfg.dropout = 0.0
    return build(cfg)


@pytest.fixture(scope='module')
def reference():
    data = golden('h_deformable_two_stage')
    positions = dict(temperature=10000, offset=-0.5)
    model = deformable(detector='HDeformableDETR', one_to_many=ONE_TO_MANY, positional_encoding=positions)
    load_reference_weights(model, data)
    return data, model, [tensor(data[f'feats_{level}']) for level in range(3)]


def test_outputs_of_the_reference(reference):
    data, model, feats = reference
    with torch.no_grad():
        states = model.eval().forward_transformer(feats, unmasked_samples(data))
        logits, boxes = model.bbox_head(**states)
    close(logits[-1], data['eval_nomask.pred_logits'])
    close(boxes[-1], data['eval_nomask.pred_boxes'])


def test_losses_and_gradients_of_the_reference(reference):
    """Of both branches. The reference's GIoU has an epsilon of its own."""
    data, model, feats = reference
    batch = golden_samples(data)
    model.train()
    feats = [feat.clone().requires_grad_() for feat in feats]
    states = model.forward_transformer(feats, batch)
    logits, boxes = model.bbox_head(states['hidden_states'], states['references'])
    for part, (name, num) in zip((slice(0, 10), slice(10, 34)), (('one2one', 10), ('one2many', 24))):
        assert logits[:, :, part].shape[2] == num
        close(logits[:, :, part], data[f'train.{name}_logits_layers'])
        close(boxes[:, :, part], data[f'train.{name}_boxes_layers'])
    losses = model.bbox_head.loss(**states, batch_data_samples=batch)
    assert len(losses) == 21
    for key, value in losses.items():
        torch.testing.assert_close(
            value, tensor(data[reference_key(key)]), rtol=1e-3 if 'iou' in key else 2e-5, atol=1e-6
        )
    sum(losses.values()).backward()
    for level, feat in enumerate(feats):
        expected = tensor(data[f'grad.feats_{level}'])
        assert (feat.grad - expected).norm() / expected.norm() < 1e-3


def reference_key(key):
    """``d0.o2m_loss_iou`` is ``loss_weighted.loss_giou_0_one2many`` there."""
    layer, _, name = key.rpartition('.')
    term = {'cls': 'class', 'bbox': 'bbox', 'iou': 'giou'}[name.rpartition('_')[2]]
    branch = '_enc' if name.startswith('enc_') else f'_{layer[1:]}' if layer else ''
    return f'loss_weighted.loss_{term}{branch}' + ('_one2many' if 'o2m_' in name else '')


@pytest.mark.parametrize('num_gts', [(3, 1), (0, 0), (30, 2)], ids=str)
@pytest.mark.parametrize(
    'config, model',
    [
        (PLAIN, {}),
        (PLAIN, dict(with_box_refine=True, look_forward_twice=True, one_to_many=ONE_TO_MANY)),
        (TWO_STAGE, dict(encoder=dict(fusion=dict(type='DenseMemoryFusion')))),
        (TWO_STAGE, dict(detector='HDeformableDETR', one_to_many=ONE_TO_MANY)),
        (STABLE_DINO, dict(one_to_many=ONE_TO_MANY)),
    ],
    ids=['plain', 'refined_hybrid', 'two_stage_fusion', 'h_detr', 'h_dino'],
)
def test_every_parameter_learns(config, model, num_gts):
    """Also where 3 copies of 30 ground truths are more than the 24 queries for them."""
    if config == STABLE_DINO:
        detector = build(tiny_model_cfg(config, model, num_queries=10)).train()
    else:
        detector = deformable(config, **model).train()
    batch = samples(num_gts, (64, 96))
    losses = detector.loss(IMAGES, batch)
    assert all(value.isfinite() for value in losses.values())
    assert ('d0.o2m_loss_iou' in losses) == ('one_to_many' in model)
    sum(losses.values()).backward()
    assert not [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    states = detector.eval().forward_transformer(detector.extract_feat(IMAGES), batch)
    assert states['hidden_states'].shape[2] == 10  # one-to-many queries are gone
    assert len(detector.predict(IMAGES, batch)) == 2


def test_mask_hides_the_two_kinds_from_each_other():
    layout = DenoisingLayout(num_groups=1, num_slots=1, num_shown=(1,))
    segments = Segment('dn_', 1, layout), Segment('', 2, Matched()), Segment('o2m_', 3, Matched(copies=3))
    mask = QueryPlan(segments, BatchTargets.from_samples(samples((1,)))).attention_mask()
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:3, 3:] = expected[3:, 1:3] = True
    expected[1:, 0] = True  # nobody sees the denoising query, which sees everybody
    assert mask.equal(expected)


def test_one_to_one_queries_know_nothing_of_the_others():
    """In training, one-to-one predictions are those of the same model at test time, and of it without the others."""
    model = deformable(detector='HDeformableDETR', one_to_many=ONE_TO_MANY).train()
    batch = samples((3, 1), (64, 96))
    with torch.no_grad():
        feats = model.eval().extract_feat(IMAGES)
        alone = model.forward_transformer(feats, batch)['hidden_states']
        together = model.train().forward_transformer(feats, batch)['hidden_states']
    assert together.shape[2] == 34
    torch.testing.assert_close(together[:, :, :10], alone)


def test_copies_are_matched_to_distinct_queries():
    """Each ground truth gets its k queries, none of them twice; with one copy it is plain Hungarian matching."""
    model = deformable(detector='HDeformableDETR', one_to_many=ONE_TO_MANY).train()
    seen = []
    solve = model.bbox_head.assigner.assign_batch

    def recording(*args):
        seen.extend(solve(*args))
        return seen

    model.bbox_head.assigner.assign_batch = recording
    model.loss(IMAGES, samples((3, 1), (64, 96)))
    one_to_one, one_to_many, encoder = seen
    assert (one_to_one.num_per_layer, encoder.num_per_layer, one_to_many.num_per_layer) == (4, 4, 12)
    pairs = torch.stack([one_to_many.layer_inds, one_to_many.image_inds, one_to_many.query_inds])
    assert len(pairs.unique(dim=1).T) == 36
    first = (one_to_many.layer_inds == 0) & (one_to_many.image_inds == 0)
    assert one_to_many.gt_inds[first].bincount().tolist() == [3, 3, 3]


def test_weight_of_one_to_many_losses():
    batch, losses = samples((3, 1), (64, 96)), []
    for weight in (1.0, 0.5):
        model = deformable(detector='HDeformableDETR', one_to_many=dict(ONE_TO_MANY, loss_weight=weight))
        losses.append(model.train().loss(IMAGES, batch))
    for key in losses[0]:
        factor = 0.5 if 'o2m_' in key else 1.0
        torch.testing.assert_close(losses[1][key], losses[0][key] * factor)


def test_checkpoint_of_mmdet_fits():
    """Without additions it is mmdet's model, at mmdet's width."""
    theirs = deformable(detector='DeformableDETR')
    ours = deformable()
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []


def test_at_width_256_it_is_mmdets():
    """The same predictions from the same weights, for the width that mmdet allows; also where queries are learned."""
    for config in (TWO_STAGE, PLAIN):
        models = []
        for detector, head in (('DeformableDETR', 'DeformableDETRHead'), ('StableDeformableDETR',) * 2):
            settings = dict(type=detector) if detector == head else dict(type=detector, bbox_head=dict(type=head))
            models.append(build(tiny_model_cfg(config, settings, width=256, num_heads=8, num_queries=10)).eval())
        models[1].load_state_dict(models[0].state_dict())
        with torch.no_grad():
            theirs, ours = (model.predict(IMAGES, samples((3, 1), (64, 96))) for model in models)
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a.pred_instances.bboxes, b.pred_instances.bboxes, rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(a.pred_instances.scores, b.pred_instances.scores)


@pytest.mark.parametrize(
    'config, model, message',
    [
        (PLAIN, dict(mixed_selection=True), 'mixed_selection=True .* set as_two_stage=True'),
        (PLAIN, dict(look_forward_twice=True), 'look_forward_twice=True .* set with_box_refine=True'),
        (TWO_STAGE, dict(one_to_many=dict(num_queries=24, num_copies=0)), 'num_copies must be at least 1'),
        (TWO_STAGE, dict(encoder=dict(num_cp=4)), 'encoder.num_cp=4: there are only 3 layers'),
    ],
    ids=['mixed_selection', 'look_forward_twice', 'copies', 'checkpointing'],
)
def test_settings_that_do_not_fit(config, model, message):
    with pytest.raises(ValueError, match=message):
        deformable(config, **model)


def test_looking_forward_twice_changes_gradients_only():
    """Values are those of mmdet's decoder; only the gradient reaches one layer further."""
    outputs, models = [], [deformable(look_forward_twice=twice).train() for twice in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        states = model.forward_transformer(model.extract_feat(IMAGES), samples((3, 1), (64, 96)))
        outputs.append(states['references'])
    assert [reference.requires_grad for reference in outputs[0]] == [False] * 4
    assert [reference.requires_grad for reference in outputs[1]] == [False, True, True, True]
    for plain, twice in zip(*outputs):
        torch.testing.assert_close(twice, plain)


@pytest.mark.parametrize('fusion', [None, dict(type='UShapedMemoryFusion')], ids=['no_fusion', 'fusion'])
def test_checkpointing_changes_memory_only(fusion):
    """The same losses and gradients, from fewer values that are kept for the backward pass."""
    results = []
    models = [deformable(encoder=dict(fusion=fusion, num_cp=num)).train() for num in (0, 3)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            losses = model.loss(IMAGES, samples((3, 1), (64, 96)))
        sum(losses.values()).backward()
        results.append((losses, {name: p.grad for name, p in model.named_parameters()}, sum(kept)))
    for plain, checkpointed in zip(results[0][:2], results[1][:2]):
        torch.testing.assert_close(checkpointed, plain)
    assert results[1][2] < 0.8 * results[0][2]


@pytest.mark.parametrize('config', [PLAIN, TWO_STAGE, STABLE_DINO], ids=['points', 'boxes', 'dino'])
def test_predictions_come_from_the_last_layer(config):
    """Those of mmdet's way, which runs the branches of all layers."""
    model = build(tiny_model_cfg(config)) if config == STABLE_DINO else deformable(config)
    for branch in model.bbox_head.reg_branches:  # which start at zero
        torch.nn.init.normal_(branch[-1].weight, std=0.3)
    model.eval()
    batch = samples((3, 1), (64, 96))
    with torch.no_grad():
        states = model.forward_transformer(model.extract_feat(IMAGES), batch)
        head = model.bbox_head
        found = head.predict(**states, batch_data_samples=batch)
        expected = head.predict_by_feat(*head(**states), batch_img_metas=[sample.metainfo for sample in batch])
    for ours, all_layers in zip(found, expected):
        torch.testing.assert_close(ours.bboxes, all_layers.bboxes)
        torch.testing.assert_close(ours.scores, all_layers.scores)


@pytest.mark.parametrize('head', ['StableDeformableDETRHead', 'StableDINOHead', 'DeformableDETRHead'])
def test_proposals_are_ranked_as_the_head_supervises_them(head):
    """By class 0 among all tokens, or by the best class, of which the best proposals learn."""
    cfg = tiny_model_cfg(TWO_STAGE, dict(type='StableDeformableDETR', bbox_head=dict(type=head)), num_queries=10)
    cfg.train_cfg.assigner.type = 'StableHungarianAssigner' if head.startswith('Stable') else 'HungarianAssigner'
    model = build(cfg).train()
    with torch.no_grad():
        for branch in model.bbox_head.cls_branches:
            torch.nn.init.normal_(branch.weight, std=0.3)
        states = model.forward_transformer(model.extract_feat(IMAGES), samples((3, 1), (64, 96)))
        proposals, logits = states['enc_outputs_coord'], states['enc_outputs_class']
    by_class = head == 'StableDINOHead'
    assert model.class_agnostic_encoder != by_class
    assert (logits.shape[1] == 10) == by_class
    scores = logits.amax(-1) if by_class else logits[..., 0]
    best = scores.topk(10, 1).indices[..., None].expand(-1, -1, 4)
    torch.testing.assert_close(states['references'][0], proposals.gather(1, best))


def test_losses_at_test_time():
    """As a hook may ask for on validation data: without one-to-many queries there are none of their losses."""
    model = deformable(detector='HDeformableDETR', one_to_many=dict(ONE_TO_MANY, num_queries=8)).eval()
    losses = model.loss(IMAGES, samples((3, 1), (64, 96)))
    assert not [key for key in losses if 'o2m_' in key] and sum(losses.values()).isfinite()


def test_order_of_parameters_stays():
    """Optimisers number parameters by it: in another order, interrupted trainings could not be resumed."""

    def order(model):
        names = [name.split('.')[0] for name, _ in model.named_parameters()]
        return [name for name in dict.fromkeys(names) if name not in ('backbone', 'neck', 'bbox_head')]

    proposals = ['level_embed', 'encoder', 'decoder', 'memory_trans_fc', 'memory_trans_norm']
    two_stage = [*proposals, 'pos_trans_fc', 'pos_trans_norm']
    assert order(deformable()) == two_stage
    h_detr = deformable(detector='HDeformableDETR', one_to_many=ONE_TO_MANY)
    assert order(h_detr) == [*two_stage, 'query_embedding']
    dino = ['level_embed', 'encoder', 'decoder', 'query_embedding', *proposals[3:], 'dn_query_generator']
    assert order(build(tiny_model_cfg(STABLE_DINO))) == dino
