"""mmcv's deformable attention, faster on a CPU, and for bfloat16 on a GPU."""

from typing import Any, Callable, Iterator, Optional, Tuple

import torch
from mmcv.ops import MultiScaleDeformableAttention, get_compiling_cuda_version
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from .level_sizes import LevelSizes, sizes_on_device

HAS_CUDA_OPERATOR = get_compiling_cuda_version() != 'not available'  # as mmcv says without CUDA, or uncompiled

Sampling = Callable[[Tensor, LevelSizes, Tensor, Tensor], Tensor]  # see weighted_samples


class DeformableAttention(MultiScaleDeformableAttention):
    """Attention to a few points of several maps, with the arguments, parameters and results of mmcv's
    ``MultiScaleDeformableAttention``.

    On a GPU, mmcv's CUDA operator does the work, in float32 also under autocast, as positions in half precision lie up
    to 0.8 pixels off; mmcv's check of map sizes is left out, as it waits for the device in each layer. On a CPU, mmcv
    samples maps whose channels lie far apart; :func:`weighted_samples` reads whole rows instead, also on a GPU for
    which mmcv was not compiled. Other devices, and tracing as for ONNX, are left to mmcv.

    Source: arXiv:2010.04159 Eq. 3.
    """

    sampling: Optional[Sampling] = None  # takes the place of the device's own way, for an export

    def forward(
        self,
        query: Tensor,
        key: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        identity: Optional[Tensor] = None,
        query_pos: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
        reference_points: Optional[Tensor] = None,
        spatial_shapes: Optional[LevelSizes] = None,
        level_start_index: Optional[Tensor] = None,
        **kwargs,
    ) -> Tensor:
        """Output (B, Q, D) for ``query`` (B, Q, D), ``value`` (B, N, D) and ``reference_points`` (B, Q, L, 2 or 4),
        normalised, with L map sizes (height, width) in ``spatial_shapes``; batch second without ``batch_first``."""
        if query.device.type not in ('cpu', 'cuda') or (torch.jit.is_tracing() and not self.sampling):
            maps = dict(spatial_shapes=spatial_shapes, level_start_index=level_start_index)
            inputs = dict(query_pos=query_pos, key_padding_mask=key_padding_mask, reference_points=reference_points)
            return super().forward(query, key, value, identity, **inputs, **maps, **kwargs)
        if reference_points is None or spatial_shapes is None:
            raise ValueError('DeformableAttention needs reference_points and spatial_shapes')
        if reference_points.shape[-1] not in (2, 4):
            raise ValueError(f'reference_points: the last dimension is 2 or 4, got {tuple(reference_points.shape)}')
        value = query if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = (query + query_pos).to(query.dtype)  # positions are float32, also in a model of half precision
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.num_heads, -1))
        points = (self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (self.num_heads, *points, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1)).softmax(-1).unflatten(-1, points)
        sizes = sizes_on_device(spatial_shapes, query.device)
        reference_points = reference_points[:, :, None, :, None]
        if reference_points.shape[-1] == 2:  # offsets in cells of the map
            unit = 1 / sizes.flip(-1)[:, None]
        else:  # in halves of the reference box, which all points together cover
            unit = reference_points[..., 2:] * (0.5 / self.num_points)
        locations = reference_points[..., :2] + offsets * unit
        if self.sampling is not None:
            output = self.sampling(value, spatial_shapes, locations, weights)
        elif value.is_cuda and HAS_CUDA_OPERATOR:
            output = cuda_samples(value, sizes, level_start_index, locations, weights, self.im2col_step)
        else:
            output = weighted_samples(value, sizes, locations, weights)
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return self.dropout(output) + identity


def cuda_samples(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Optional[Tensor],
    locations: Tensor,
    weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """:func:`weighted_samples` by mmcv's CUDA operator."""
    # In float32: the operator would compute positions in half precision, and knows no bfloat16.
    dtype = torch.promote_types(value.dtype, torch.float32)
    maps, locations, weights = (tensor.to(dtype).contiguous() for tensor in (value, locations, weights))
    arguments = maps, spatial_shapes, level_start_index, locations, weights
    return MultiScaleDeformableAttnFunction.apply(*arguments, im2col_step).to(value.dtype)


def weighted_samples(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample maps bilinearly, with zeros around them, and add up the samples of each query and head.

    Every sample is a weighted sum of four rows of ``value``, so that everything is one weighted sum of rows.

    Args:
        value: (B, N, H, D), H heads at all positions of L maps.
        spatial_shapes: (L, 2) heights and widths of the maps, N positions in all.
        locations: (B, Q, H, L, P, 2) of P points, x and y from 0 to 1.
        weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * D) of the dtype of ``value``; NaN where a location, or a value near it, is not finite.
    """
    batch, num_values, heads, _ = value.shape
    num_points = weights.shape[-1]
    dtype = torch.promote_types(value.dtype, torch.float32)
    # One entry per level and point, which makes each operation below one pass over contiguous memory.
    height, width = spatial_shapes.to(dtype).repeat_interleave(num_points, 0).unbind(1)
    sizes = spatial_shapes.prod(1)
    start = (sizes.cumsum(0) - sizes).to(dtype).repeat_interleave(num_points)
    x, y = locations.to(dtype).flatten(3, 4).unbind(-1)
    weights = weights.to(dtype).flatten(3)
    columns = list(_neighbours(x * width - 0.5, width))
    corners, corner_shares = [], []
    for share_y, row in _neighbours(y * height - 0.5, height):
        row, share_y = start + row * width, share_y * weights
        for share_x, column in columns:
            corners.append(row + column)
            corner_shares.append(share_y * share_x)
    positions, shares = torch.stack(corners, 3), torch.stack(corner_shares, 3)  # (B, Q, H, 4, L * P)
    # Half the size where that holds all indices, also those that embedding_bag counts by itself.
    index = torch.int32 if max(shares.numel(), value.numel()) < 2**31 else torch.int64
    image = torch.arange(batch, dtype=index, device=value.device)[:, None, None, None, None]
    head = torch.arange(heads, dtype=index, device=value.device)[:, None, None]
    rows = (image * num_values + positions.to(index)) * heads + head
    table = value.to(dtype).flatten(0, 2)
    sampled = _WeightedRows.apply(table, rows.flatten(0, 2).flatten(1), shares.flatten(0, 2).flatten(1))
    return sampled.view(batch, -1, heads * value.shape[-1]).to(value.dtype)


def _neighbours(position: Tensor, size: Tensor) -> Iterator[Tuple[Tensor, Tensor]]:
    """Along one axis, the cells below and above a position: their shares, 0 outside of the map, and finite indices."""
    below = position.detach().floor()
    share = position - below
    below = below.nan_to_num()
    for index, share_of_index in ((below, 1 - share), (below + 1, share)):
        inside = index.clamp(min=0).minimum(size - 1)
        yield share_of_index * (inside == index), inside


class _WeightedRows(Function):
    """(M, D) sums of K rows each of a table (R, D), for rows and weights (M, K).

    ``embedding_bag`` in both directions: its own backward pass for the table takes two to three times as long.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return embedding_bag(rows, table, per_sample_weights=weights, mode='sum')

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, Tensor]:
        table, rows, weights = ctx.saved_tensors
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_()
            sums = embedding_bag(rows, table, per_sample_weights=leaf, mode='sum')
        (grad_weights,) = torch.autograd.grad(sums, leaf, grad)
        sorted_rows, order = rows.flatten().sort(stable=True)
        starts = torch.searchsorted(sorted_rows, torch.arange(len(table), dtype=rows.dtype, device=rows.device))
        weights = weights.flatten().index_select(0, order)
        grad_table = embedding_bag(order // rows.shape[1], grad, starts, per_sample_weights=weights, mode='sum')
        return grad_table, None, grad_weights
