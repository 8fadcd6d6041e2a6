"""Ground-truth masks at points are those that mmcv samples from floats."""

import pytest
import torch
from mmcv.ops import point_sample

from mmdet_stable.structures import MaskTargets
from mmdet_stable.utils import sample_maps


def test_values_at_points():
    masks = [torch.rand(num, 13, 17) > 0.5 for num in (3, 0, 2)]
    targets = MaskTargets.from_masks(masks)
    points = torch.rand(5, 200, 2)
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 1.0]])
    found = targets.sample(torch.arange(5), points)
    expected = point_sample(torch.cat(masks)[:, None].float(), points)[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(targets.masks, torch.cat(masks))
    assert targets.rows(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 1])).tolist() == [1, 3, 4]
    maps = torch.randn(5, 2, 6, 7)
    torch.testing.assert_close(sample_maps(maps, points), point_sample(maps, points))


def test_many_channels_are_sampled_by_rows():
    maps, points = torch.randn(2, 40, 6, 7, requires_grad=True), torch.rand(2, 100, 2)
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 1.0]])
    found, expected = sample_maps(maps, points), point_sample(maps, points)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(expected)
    grads = [torch.autograd.grad(values, maps, weights)[0] for values in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_shared_points_and_padding():
    masks = [torch.rand(num, 13, 17) > 0.5 for num in (3, 1)]
    targets = MaskTargets.from_masks(masks)
    points = torch.rand(2, 9, 2)
    values = targets.sample(targets.padded_rows(), points[:, None])
    assert values.shape == (2, 3, 9) and values.isfinite().all()
    for image, image_masks in enumerate(masks):
        expected = point_sample(image_masks[None].float(), points[image : image + 1])[0]
        torch.testing.assert_close(values[image, : len(image_masks)], expected, rtol=0, atol=1e-5)


def test_no_masks_at_all():
    targets = MaskTargets.from_masks([torch.zeros(0, 13, 17, dtype=torch.bool)] * 2)
    assert targets.sample(targets.padded_rows(), torch.rand(2, 1, 9, 2)).shape == (2, 0, 9)
    assert targets.averages((4, 4)).shape == (0, 4, 4)


def test_averages():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 0, :4] = True
    assert MaskTargets.from_masks([masks]).averages((2, 2)).tolist() == [[[0.25, 0], [0, 0]]]


def test_sizes_must_agree():
    with pytest.raises(ValueError, match='pad_mask=True'):
        MaskTargets.from_masks([torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 5, dtype=torch.bool)])


def test_masks_of_more_pixels_than_float32_counts():
    """4200 * 4200 is above 2^24: the only set pixel, on an odd index, has its value at its centre."""
    size, x, y = 4200, 4099, 4101
    masks = torch.zeros(1, size, size, dtype=torch.uint8)
    masks[0, y, x] = 1
    centre = (torch.tensor([x, y]) + 0.5) / size
    value = MaskTargets.from_masks([masks]).sample(torch.tensor([0]), centre[None, None])
    torch.testing.assert_close(value, torch.ones(1, 1), rtol=0, atol=0.01)
