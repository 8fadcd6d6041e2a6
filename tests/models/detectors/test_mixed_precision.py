"""Training and inference under autocast, inference of models in half precision, and predictions that overflow."""

import copy

import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmengine.optim import OptimWrapper

from tests.models.detectors.test_dn_deformable_detr import dn_deformable
from tests.models.detectors.test_ground_truth_of_every_kind import dn_detr, stable_dino
from tests.models.detectors.test_mask_dino import model_cfg as mask_dino_cfg
from tests.models.detectors.test_stable_deformable_detr import PLAIN, deformable
from tests.models.test_mixing import MATRIX, model_cfg
from tests.utils import build, samples

MODELS = dict(stable_dino=stable_dino, dn_detr=dn_detr, dn_deformable=lambda: dn_deformable(as_two_stage=True))
IMAGES = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('model', MODELS.values(), ids=MODELS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_boxes_and_losses_are_float32(model, dtype):
    model = model().train()
    batch = samples((3, 0))
    with torch.autocast('cpu', dtype):
        _, boxes = model.bbox_head(
            **{
                name: value
                for name, value in model.forward_transformer(model.extract_feat(IMAGES), batch).items()
                if name in ('hidden_states', 'references')
            }
        )
        losses = model.loss(IMAGES, batch)
    assert boxes.dtype == torch.float32
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in losses.values())


HEADS = dict(
    StableDETRHead=None,
    StableConditionalDETRHead=(2, 12, 2),
    StableDABDETRHead=(3, 2, 12, 4),
    StableDeformableDETRHead=(4, 2, 12, 4),
    StableDINOHead=(4, 2, 12, 4),
)


@pytest.mark.parametrize('head, references', HEADS.items(), ids=HEADS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_box_refinement_is_exact_in_half_precision(head, references, dtype):
    """From the same states, boxes of mixed precision are those of float32, in every head."""
    costs = [dict(type='FocalLossCost', weight=2.0)]
    head = DETECTORS.build(
        dict(
            type=head,
            num_classes=7,
            embed_dims=32,
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            train_cfg=dict(assigner=dict(type='StableHungarianAssigner', match_costs=costs)),
            test_cfg=dict(max_per_img=10),
        )
    )
    for parameter in head.parameters():  # box branches begin at zero
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = dict(hidden_states=torch.randn(3, 2, 12, 32))
    if references is not None:
        inputs['references'] = torch.rand(references)
    with torch.no_grad():
        _, expected = head(**inputs)
        with torch.autocast('cpu', dtype):
            logits, boxes = head(**inputs)
    assert logits.dtype == dtype and boxes.shape == (3, 2, 12, 4)
    assert (boxes - expected).abs().max() * 1333 < 0.01  # 3.6 pixels or more where mmdet's heads compute them
    result = head._predict_by_feat_single(logits[-1, 0], boxes[-1, 0], dict(img_shape=(64, 96)), rescale=False)
    assert result.scores.dtype == result.bboxes.dtype == torch.float32


@pytest.mark.parametrize('model', MODELS.values(), ids=MODELS)
def test_boxes_of_decoders_are_refined_in_float32(model):
    """Also inside of decoder and encoder: references of mixed precision have all digits of float32."""
    model = model().eval()
    for parameter in model.bbox_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        states = model.forward_transformer(model.extract_feat(IMAGES), samples((3, 0)))
    for reference in states['references']:
        assert reference.dtype == torch.float32 and not reference.equal(reference.bfloat16().float())


@pytest.mark.parametrize('model', MODELS.values(), ids=MODELS)
def test_training_in_bfloat16_learns_and_predicts(model):
    model = model().train()
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=5e-4), clip_grad=dict(max_norm=0.1))
    batch, losses = samples((3, 1)), []
    for _ in range(24):
        with torch.autocast('cpu', torch.bfloat16):
            loss, _ = model.parse_losses(model.loss(IMAGES, batch))
        optimizer.update_params(loss)
        losses.append(loss.item())
    assert sum(losses[-6:]) < sum(losses[:6])  # the denoising queries differ at every step
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        results = model.eval().predict(IMAGES, copy.deepcopy(batch))
    assert all(result.pred_instances.bboxes.isfinite().all() and len(result.pred_instances) for result in results)


def dn_conditional():
    return build(model_cfg('Conditional-DETR', MATRIX['Conditional-DETR'][1]['denoising']))


FAMILIES = dict(
    MODELS,
    dn_conditional=dn_conditional,
    deformable=deformable,
    learned_points=lambda: deformable(PLAIN),
    mask_dino=lambda: build(mask_dino_cfg()),
)


@pytest.mark.parametrize('model', FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_models_of_half_precision_predict(model, dtype):
    """All weights are halved. Boxes stay float32; scores are nearly those of the whole model."""
    model = model().eval()
    model.bbox_head.test_cfg = dict(max_per_img=15)  # without NMS, which might keep another number
    batch = samples((3, 0))
    batch[1].set_metainfo(dict(img_shape=(80, 100)))
    data = dict(inputs=[image.sigmoid() * 255 for image in IMAGES], data_samples=batch)
    with torch.no_grad():
        whole = model.test_step(copy.deepcopy(data))
        halved = model.to(dtype).test_step(copy.deepcopy(data))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for expected, found in zip(whole, halved):
        expected, found = expected.pred_instances, found.pred_instances
        assert found.bboxes.dtype == found.scores.dtype == torch.float32
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0.03)


@pytest.fixture
def overflowing():
    """A Stable-DINO in which the logits of the first image overflow, as they may in half precision."""
    model = stable_dino().train()

    def overflow(_, __, logits):
        return torch.cat([torch.full_like(logits[:1], float('inf')), logits[1:]])

    model.bbox_head.cls_branches[0].register_forward_hook(overflow)
    return model


def test_predictions_that_overflow_are_named(overflowing):
    batch = samples((3, 2))
    batch[0].set_metainfo(dict(img_path='street.jpg'))
    with pytest.raises(ValueError, match=r'street\.jpg: predicted logits are not finite in layer "d0.loss"'):
        overflowing.loss(IMAGES, batch)


def test_skipping_an_image_that_overflows(overflowing):
    """The step goes on with the other image, and every gradient is finite."""
    overflowing.bbox_head.assigner.on_invalid = 'skip'
    losses = overflowing.loss(IMAGES, samples((3, 2)))
    assert max(losses.values()) < 20  # nor does what stands in for the predictions swell the losses that are logged
    assert overflowing.bbox_head.assigner.num_skipped == 1
    assert all(value.isfinite().all() for value in losses.values())
    sum(losses.values()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in overflowing.parameters())
