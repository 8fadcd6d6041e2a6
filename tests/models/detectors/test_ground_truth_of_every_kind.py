"""Unusual ground truth and images: training goes on, with finite losses and a gradient for every parameter."""

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

from mmdet_stable.models.layers import with_enough_tokens
from tests.models.detectors.test_dn_deformable_detr import dn_deformable
from tests.models.detectors.test_dn_detr import dn_detr_cfg
from tests.utils import build, data_sample, samples, tiny_model_cfg

SHAPE = (96, 128)


def stable_dino(num_classes=7, **sizes):
    frozen = dict(backbone=dict(norm_eval=True), test_cfg=dict(max_per_img=5))  # a 1 x 1 map has no batch statistics
    return build(tiny_model_cfg(overrides=frozen, num_classes=num_classes, num_layers=2, **sizes))


def dn_detr(num_classes=7):
    cfg = dn_detr_cfg(num_classes=num_classes)
    cfg.backbone.norm_eval = True
    return build(cfg)


def check_step(model, images, batch):
    """A training step, and a prediction."""
    losses = model.train().loss(images, batch)
    assert all(value.isfinite().all() for value in losses.values()), losses
    sum(losses.values()).sum().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        (result, *_) = model.eval().predict(images, batch)
    assert result.pred_instances.bboxes.isfinite().all()


def with_boxes(*boxes):
    return [data_sample(torch.tensor(boxes, dtype=torch.float32), torch.zeros(len(boxes), dtype=torch.long), SHAPE)]


BOXES = {
    'none': samples((0,), SHAPE),
    'degenerate': with_boxes([10, 10, 10, 40], [20, 20, 20, 20]),
    'inverted': with_boxes([60, 60, 20, 30], [10, 10, 30, 30]),
    'out_of_image': with_boxes([-50, -60, 400, 300], [500, 500, 600, 600]),
    'identical': with_boxes(*[[10, 10, 50, 50]] * 5),
    'more_than_queries': samples((50,), SHAPE),
    'a_thousand': samples((1000,), SHAPE),
}


@pytest.mark.parametrize('model', [stable_dino, dn_detr, dn_deformable], ids=lambda model: model.__name__)
@pytest.mark.parametrize('batch', BOXES.values(), ids=BOXES)
def test_boxes(model, batch):
    check_step(model(), torch.randn(1, 3, *SHAPE), batch)


@pytest.mark.parametrize('model', [stable_dino, dn_detr], ids=lambda model: model.__name__)
@pytest.mark.parametrize('num_classes', [1, 1200])
def test_numbers_of_classes(model, num_classes):
    check_step(model(num_classes), torch.randn(2, 3, *SHAPE), samples((3, 0), SHAPE, num_classes))


@pytest.mark.parametrize('shape', [(1, 1), (1, 300), (500, 2), (33, 17), (64, 4000)], ids=str)
@pytest.mark.parametrize(
    'model',
    [stable_dino, dn_detr, lambda: dn_deformable(as_two_stage=True)],
    ids=['stable_dino', 'dn_detr', 'dn_deformable'],
)
def test_sizes_of_images(model, shape):
    height, width = shape
    batch = [data_sample(torch.tensor([[0.0, 0, width, height]]), torch.tensor([2]), shape)]
    model = model()
    model.backbone.eval()
    model.backbone.norm_eval = True
    check_step(model, torch.randn(1, 3, *shape), batch)


@pytest.mark.parametrize('two_sizes', [False, True])
def test_fewer_encoder_tokens_than_queries(two_sizes):
    """Also where the smaller image of the batch is padded; the size of the result is that of every image."""
    model = stable_dino(num_queries=300)
    batch = samples((2, 1), (64, 64))
    if two_sizes:
        batch[1].set_metainfo(dict(img_shape=(20, 30)))
    check_step(model, torch.randn(2, 3, 64, 64), batch)
    with torch.no_grad():
        logits, boxes = model.bbox_head(
            **model.forward_transformer(model.extract_feat(torch.randn(2, 3, 64, 64)), batch)
        )
    assert logits.shape[2] == boxes.shape[2] == 300 and boxes.isfinite().all()


def test_enough_tokens_are_left_alone():
    tokens = torch.ones(1, 20, 8), torch.zeros(1, 20, dtype=torch.bool), [(4, 4), (2, 2)]
    assert all(a is b for a, b in zip(with_enough_tokens(*tokens, num_queries=20), tokens))
    memory, mask, shapes = with_enough_tokens(*tokens, num_queries=21)
    assert memory.shape[1] == mask.shape[1] == 21 and shapes == [(4, 4), (2, 2), (1, 1)]


def test_nan_ground_truth_is_named():
    batch = with_boxes([10, 10, float('nan'), 40])
    batch[0].set_metainfo(dict(img_path='street.jpg'))
    with pytest.raises(ValueError, match=r'street\.jpg.*ground truth'):
        stable_dino().train().loss(torch.randn(1, 3, *SHAPE), batch)


def train_on_two_processes(rank, make_model, init_file, results):
    """A step without boxes on the second process, and one without any; weights must stay the same on both."""
    from mmdet.utils import register_all_modules

    register_all_modules()
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{init_file}', rank=rank, world_size=2)
    model = MMDistributedDataParallel(make_model(), device_ids=None)  # find_unused_parameters is False
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    torch.manual_seed(rank)
    for num_gts in (((3, 1), (0, 0)), ((0, 0), (0, 0))):
        batch = samples(num_gts[rank], SHAPE)
        data = dict(inputs=[torch.randint(0, 255, (3, *SHAPE), dtype=torch.uint8) for _ in batch], data_samples=batch)
        model.train().train_step(data, optimizer)
    results[rank] = sum(p.detach().double().abs().sum().item() for p in model.parameters())
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('make_model', [stable_dino, dn_detr], ids=lambda model: model.__name__)
def test_rank_without_boxes(make_model, tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(train_on_two_processes, (make_model, tmp_path / 'init', results), nprocs=2)
        assert results[0] == results[1] and torch.tensor(results[0]).isfinite()
