"""Every term of the reference criterion: ``criterion_full_*.npz``."""

import numpy as np
import pytest
import torch

from tests.utils import build_head, golden, golden_samples, tensor

# reference term -> ours
TERMS = dict(loss_class='loss_cls', loss_bbox='loss_bbox', loss_giou='loss_iou')
PREFIXES = {'': '', '_0': 'd0.', '_1': 'd1.', '_enc': 'enc_', '_dn': 'dn_', '_dn_0': 'd0.dn_', '_dn_1': 'd1.dn_'}

# The reference adds 1e-6 to the union of NORMALISED boxes, which moves GIoU by about 1e-4, IoU less, and L1 not at all.
RTOL = dict(loss_class=1e-5, loss_bbox=5e-6, loss_giou=3e-4)
GRAD_ATOL = dict(logits=4e-5, boxes=1e-4)  # relative to the largest entry


def predictions(data, key):
    """(logits, boxes) of three layers or one branch, requiring gradients."""
    return [tensor(data[f'in.{key}.pred_{part}']).requires_grad_() for part in ('logits', 'boxes')]


@pytest.mark.parametrize('name', ['criterion_full_2img', 'criterion_full_onezero'])
def test_every_loss_term_and_gradient(name):
    data = golden(name)
    head = build_head(num_classes=7)
    branches = {key: predictions(data, key) for key in ('last', 'aux0', 'aux1', 'enc', 'dn_last', 'dn_aux0', 'dn_aux1')}
    logits, boxes = (
        torch.stack(
            [torch.cat([branches[dn + layer][part] for dn in ('dn_', '')], 1) for layer in ('aux0', 'aux1', 'last')]
        )
        for part in range(2)
    )
    samples = golden_samples(data, scale=1000)
    dn_meta = dict(
        num_denoising_queries=int(data['dn_num']) * int(data['single_padding']),
        num_denoising_groups=int(data['dn_num']),
    )
    losses = head.loss_by_feat(
        logits, boxes, *branches['enc'], [s.gt_instances for s in samples], [s.metainfo for s in samples], dn_meta
    )

    assert len(losses) == len(TERMS) * len(PREFIXES)
    for term, ours in TERMS.items():
        rtol = RTOL[term]
        for suffix, prefix in PREFIXES.items():
            np.testing.assert_allclose(
                losses[prefix + ours].detach(), data[f'loss_weighted.{term}{suffix}'], rtol=rtol, err_msg=prefix + ours
            )
    sum(losses.values()).backward()
    for key, parts in branches.items():
        for part, value in zip(('logits', 'boxes'), parts):
            reference = data[f'grad_total.{key}.pred_{part}']
            atol = GRAD_ATOL[part] * np.abs(reference).max()
            np.testing.assert_allclose(value.grad, reference, rtol=0, atol=atol, err_msg=f'{key} {part}')
