"""MaskDINO and Stable-MaskDINO through everything that a training does: no ground truth, half precision, switches."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_stable.models.detectors.mask_ground_truth import targets_with_masks
from mmdet_stable.models.task_modules import uses_masks
from tests.utils import ROOT, build, samples, shrink, with_masks

SHAPE = (64, 96)


def model_cfg(**head):
    model = Config.fromfile(ROOT / 'configs/mask_dino/stable_mask_dino_r50_12e.py').model
    shrink(model)
    model.bbox_head.update(num_classes=7, **head)
    return model


def batch_of(num_gts, cfg):
    return with_masks(samples(num_gts, SHAPE), cfg)


def step(cfg, num_gts, amp=False):
    model = build(cfg).train()
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        losses = model.loss(torch.randn(len(num_gts), 3, *SHAPE), batch_of(num_gts, cfg))
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return model, losses


@pytest.mark.parametrize('metric', ['box', 'mask', 'mean'])
@pytest.mark.parametrize('num_gts', [(3, 0), (0, 0), (9, 2)])
def test_images_without_objects(num_gts, metric):
    cfg = model_cfg(position_metric=metric)
    cfg.train_cfg.assigner.match_costs[0].position_metric = metric
    _, losses = step(cfg, num_gts)
    # K decoder layers and the queries before them, each matching and denoising, and the encoder; five terms.
    assert len(losses) == (2 * (cfg.decoder.num_layers + 1) + 1) * 5
    if not any(num_gts):
        assert all(loss == 0 for name, loss in losses.items() if 'cls' not in name)


def test_half_precision_and_checkpointing():
    cfg = model_cfg()
    cfg.neck.encoder.num_cp = 2
    _, losses = step(cfg, (3, 1), amp=True)
    assert all(loss.dtype == torch.float32 for loss in losses.values())


@pytest.mark.parametrize('rescale', [None, 'one', 'max_iou'])
@pytest.mark.parametrize('metric', ['box', 'mask', 'mean'])
def test_every_rescaling_and_metric(metric, rescale):
    step(model_cfg(position_metric=metric, target_rescale=rescale, share_points=False), (4, 2))


def test_denoising_without_masks():
    _, losses = step(model_cfg(dn='standard'), (3, 1))
    assert 'dn_loss_iou' in losses and 'loss_mask' in losses and 'enc_loss_dice' in losses
    assert not {name for name in losses if 'dn_loss_mask' in name or 'dn_loss_dice' in name}


def test_no_denoising_and_no_initial_prediction():
    cfg = model_cfg()
    cfg.update(dn_cfg=None, initial_pred=False)
    _, losses = step(cfg, (3, 1))
    assert len(losses) == (cfg.decoder.num_layers + 1) * 5


def test_targets_of_initial_denoising_queries_are_plain():
    cfg = model_cfg()
    torch.manual_seed(0)
    model = build(cfg).train()
    images, batch = torch.randn(2, 3, *SHAPE), batch_of((3, 1), cfg)

    def losses(supervised):
        model.bbox_head.position_supervise_initial_dn = supervised
        torch.manual_seed(1)
        return model.loss(images, batch)

    plain, positions = losses(False), losses(True)
    assert plain['d0.dn_loss_cls'] != positions['d0.dn_loss_cls']
    assert plain['d1.dn_loss_cls'] == positions['d1.dn_loss_cls']
    assert plain['d0.loss_cls'] == positions['d0.loss_cls']


def test_inference_gives_masks_of_the_original_size():
    cfg = model_cfg()
    model = build(cfg).eval()
    batch = samples((1,), SHAPE)
    batch[0].set_metainfo(dict(ori_shape=(100, 140), img_shape=(60, 84)))
    found = model.predict(torch.randn(1, 3, *SHAPE), batch)[0].pred_instances
    assert found.masks.shape == (15, 100, 140) and found.masks.dtype == torch.bool
    assert found.bboxes.shape == (15, 4) and (found.scores.diff() <= 0).all()


def test_stuff_has_no_box_losses():
    cfg = model_cfg(num_things=4, things_only_boxes=True)
    batch = batch_of((2, 2), cfg)
    targets = targets_with_masks(batch, 4, 7)
    assert targets.num_gts == (3, 3)  # one kind of stuff in each
    height, width = SHAPE
    np.testing.assert_allclose(targets.boxes_xyxy[0, 2], [0, 0, width, height // 2])
    step(cfg, (2, 2))
    assert uses_masks('mean') and not uses_masks('box')


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(dn='mask'), "bbox_head.dn='mask'"),
        (dict(position_metric='points'), "position_metric='points'"),
        (dict(things_only_boxes=True), 'things_only_boxes=True: say by bbox_head.num_things'),
        (dict(mask_dims=64), 'widths of the model differ'),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        build(model_cfg(**change))


@pytest.mark.parametrize('name', ['encoder', 'positional_encoding'])
def test_the_encoder_is_that_of_the_neck(name):
    cfg = model_cfg()
    cfg[name] = dict(num_layers=3)
    with pytest.raises(ValueError, match=f'model.{name}: .* set it in model.neck instead'):
        build(cfg)


def test_data_without_masks():
    cfg = model_cfg()
    with pytest.raises(ValueError, match='set with_mask=True in LoadAnnotations'):
        build(cfg).train().loss(torch.randn(1, 3, *SHAPE), samples((2,), SHAPE))
