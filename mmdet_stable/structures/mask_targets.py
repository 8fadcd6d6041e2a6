"""Ground-truth masks of a batch, and their values at points."""

from typing import NamedTuple, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad


class MaskTargets(NamedTuple):
    """Masks of all ground truths of a batch, in rows: those of the first image, of the second, and so on.

    A value between pixels is a mixture of four neighbours. These are kept together, as the bits of one byte, so that
    each point reads memory once, and the masks never become floats.

    Attributes:
        corners: (N, H + 1, W + 1) uint8 for N masks of H x W pixels. The byte at (y, x) holds the pixels at (y - 1,
            x - 1), (y - 1, x), (y, x - 1) and (y, x), lowest bit first; pixels outside of the image are 0.
        first_rows: (B,) int64, the row of each image's first ground truth.
        num_gts: of each image. Python integers, so that reading them never waits for the device.
    """

    corners: Tensor
    first_rows: Tensor
    num_gts: Tuple[int, ...]

    @classmethod
    def from_masks(cls, masks: Sequence[Tensor]) -> 'MaskTargets':
        """Of B images: (G, H, W) bool or uint8 masks of each, all of the size of the padded input.

        Raises:
            ValueError: if the sizes differ between images.
        """
        sizes = {tuple(image_masks.shape[1:]) for image_masks in masks}
        if len(sizes) > 1:
            raise ValueError(
                f'masks of one batch have the sizes {sorted(sizes)}; they must have that of the padded input, see '
                'data_preprocessor.pad_mask=True'
            )
        num_gts = tuple(len(image_masks) for image_masks in masks)
        first_rows = torch.tensor((0, *num_gts)).cumsum(0)[:-1]
        framed = pad(torch.cat(list(masks)).to(torch.uint8), (1, 1, 1, 1))
        corners = framed[:, :-1, :-1].clone()
        corners |= framed[:, :-1, 1:] << 1
        corners |= framed[:, 1:, :-1] << 2
        corners |= framed[:, 1:, 1:] << 3
        return cls(corners, first_rows.to(corners.device, non_blocking=True), num_gts)

    @property
    def masks(self) -> Tensor:
        """(N, H, W) bool."""
        return self.corners[:, 1:, 1:].bitwise_and(1).bool()

    def of_image(self, image: int) -> 'MaskTargets':
        """Those of one image."""
        start = sum(self.num_gts[:image])
        one = slice(image, image + 1)
        return MaskTargets(
            self.corners[start : start + self.num_gts[image]], self.first_rows[one] - start, self.num_gts[one]
        )

    def rows(self, image_inds: Tensor, gt_inds: Tensor) -> Tensor:
        """Rows of ground truths, given by the indices of their images and within these."""
        return self.first_rows[image_inds] + gt_inds

    def padded_rows(self) -> Tensor:
        """(B, G) rows, for the G ground truths of the image with most; any row in padding."""
        slots = torch.arange(max(self.num_gts), device=self.first_rows.device)
        return (self.first_rows[:, None] + slots).clamp(max=max(len(self.corners) - 1, 0))

    def sample(self, rows: Tensor, points: Tensor) -> Tensor:
        """Bilinear values in [0, 1] of masks at points, with zeros around the image.

        Args:
            rows: (...) int64.
            points: (..., P, 2) x and y in [0, 1], of the shape of ``rows`` or broadcast to it.

        Returns:
            (..., P) float32, the values of ``grid_sample`` with ``align_corners=False``.
        """
        height, width = (size - 1 for size in self.corners.shape[1:])
        x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
        left, top = x.floor().clamp(-1, width - 1), y.floor().clamp(-1, height - 1)
        cells = (top.long() + 1) * (width + 1) + left.long() + 1  # float32 counts to 2^24 only
        corners = self.corners.flatten().take(rows[..., None] * ((height + 1) * (width + 1)) + cells)
        right_share, low_share = x - left, y - top
        left_share, top_share = 1 - right_share, 1 - low_share
        shares = top_share * left_share, top_share * right_share, low_share * left_share, low_share * right_share
        values = torch.zeros(corners.shape, device=corners.device)
        for bit, share in enumerate(shares):
            values.addcmul_(corners.bitwise_and(1 << bit).bool().float(), share)
        return values

    def averages(self, size: Tuple[int, int]) -> Tensor:
        """(N, h, w) float32: the share of each cell of an (h, w) grid that a mask covers."""
        return adaptive_avg_pool2d(self.masks[:, None].float(), size)[:, 0]
