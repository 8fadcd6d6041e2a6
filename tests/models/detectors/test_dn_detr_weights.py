"""DN-DETR with patterns, and started from DAB-DETR."""

import pytest
import torch
from mmengine.config import Config

from tests.utils import ROOT, build, samples, shrink

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def tiny(name='dn_detr_r50_50e', **changes):
    cfg = Config.fromfile(ROOT / f'configs/dn_detr/{name}.py').model
    cfg.bbox_head.embed_dims = 32
    shrink(cfg)
    cfg.update(changes)
    return cfg


def outputs(model):
    with torch.no_grad():
        return model.eval()(IMAGES, samples((1, 1), (64, 96)), mode='tensor')[:2]


@pytest.mark.parametrize('num_patterns', [0, 3])
def test_a_checkpoint_of_dab_detr_starts_equal(num_patterns):
    """With the same weights and no labels, DN-DETR detects what DAB-DETR does."""
    dab = build(tiny('dab_detr_r50_50e', num_patterns=num_patterns), seed=1)
    dn = build(tiny(num_patterns=num_patterns), seed=2)
    missing, unexpected = dn.load_state_dict(dab.state_dict(), strict=False)
    assert missing == ['dn_query_generator.label_embedding.weight'] and not unexpected
    for ours, theirs in zip(outputs(dn), outputs(dab)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert not dn.dn_query_generator.unknown_content.any()


def test_a_checkpoint_of_dn_detr_keeps_its_labels():
    first, second = (build(tiny(), seed=seed) for seed in (1, 2))
    second.load_state_dict(first.state_dict())
    assert second.dn_query_generator.unknown_content.any()
    for ours, theirs in zip(outputs(second), outputs(first)):
        assert torch.equal(ours, theirs)


def test_patterns_train():
    """Each anchor has a query for each pattern, and all parameters learn."""
    model = build(tiny(num_patterns=3))
    assert outputs(model)[0].shape[2] == 3 * 20
    losses = model.train().loss(IMAGES, samples((3, 1), (64, 96), num_classes=80))
    sum(value.sum() for value in losses.values()).backward()
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
    assert model.patterns.weight.grad.any()
