"""Divisors of the losses over two processes with uneven ground truth, against mmdet's head on the same processes."""

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from tests.models.dense_heads.test_set_loss import CLASSES, LAYERS, head_inputs
from tests.models.detectors.test_stable_dino import DINO
from tests.utils import STABLE_DINO, build_head

FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)


def compare(rank, num_gts, init_file, results):
    """One process: losses of both heads, for this rank's images."""
    from mmdet.utils import register_all_modules

    register_all_modules()
    torch.distributed.init_process_group('gloo', init_method=f'file://{init_file}', rank=rank, world_size=2)
    torch.manual_seed(rank)
    off = dict(target_rescale=None, dn_cls_loss_weight=None, loss_cls=dict(FOCAL, _delete_=True))
    head = build_head(STABLE_DINO, LAYERS, CLASSES, **off)
    stock = build_head(DINO, LAYERS, CLASSES)
    head.assigner.match_costs = stock.assigner.match_costs
    predictions, rest = head_inputs(num_gts[rank])
    with torch.no_grad():
        results[rank] = [
            {name: value.item() for name, value in one.loss_by_feat(*predictions, *rest).items()}
            for one in (head, stock)
        ]
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('num_gts', [((4, 2), (0, 0)), ((1, 0), (3, 5))], ids=str)
def test_losses_equal_mmdets_on_every_process(num_gts, tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(compare, (num_gts, tmp_path / 'init', results), nprocs=2)
        assert len(results) == 2
        for ours, theirs in results.values():
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
