"""The operators of mmcv that DETR-type detectors need, in torch alone.

mmcv's Python files call compiled code as ``mmcv._ext``. mmcv-lite consists of these Python files without the compiled
code. Installing mmdet_stable puts this file into mmcv's folder as ``mmcv/_ext.py``, where ``import mmcv.ops`` finds
it. Python prefers a compiled ``mmcv/_ext.*.so``, also one that does not load, so that this file never replaces
mmcv's own operators. ``pip uninstall mmdet_stable`` removes it.

Names, arguments and results are those of the compiled operators; some write into tensors that the caller brings.
Everything works on any device. Every other operator of mmcv exists here as a function that raises an error.
"""

from functools import partial
from typing import Any, Callable, List, NoReturn

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softnms',
]
COMPILED_MMCV = (
    'pip uninstall -y mmcv mmcv-lite; pip install "setuptools<80" wheel ninja; '
    'MMCV_WITH_OPS=1 pip install --no-cache-dir --no-binary mmcv --no-build-isolation mmcv==2.1.0'
)
NMS_BLOCK = 256  # boxes; bounds the memory, and how much is computed in vain


def get_compiler_version() -> str:
    return 'none, operators in torch from mmdet_stable'


def get_compiling_cuda_version() -> str:
    """What compiled mmcv says where it has no CUDA operators."""
    return 'not available'


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Operators that are not here: mmcv asks for them on import, and gets the error when it calls them."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return partial(_missing_operator, name)


def _missing_operator(name: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        f'{name} is an operator that only compiled mmcv has. mmdet_stable brings these in torch for mmcv-lite: '
        f'{", ".join(__all__)}. Install compiled mmcv: {COMPILED_MMCV}'
    )


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    A box is kept if no kept box of a higher score overlaps it by more than ``iou_threshold``.

    Args:
        boxes: (N, 4), left, top, right, bottom.
        scores: (N,)
        iou_threshold: largest IoU of two kept boxes.
        offset: 0 or 1, is added to widths and heights.

    Returns:
        (K,) int64 indices of the kept boxes, best first; among equal scores, earlier boxes come first.
    """
    order = scores.sort(descending=True, stable=True).indices
    ranked = boxes[order].to(torch.promote_types(boxes.dtype, torch.float32))
    keep = torch.ones(len(ranked), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(ranked), NMS_BLOCK):
        block, keep_block = ranked[start : start + NMS_BLOCK], keep[start : start + NMS_BLOCK]
        for better in ranked[:start][keep[:start]].split(NMS_BLOCK):
            keep_block &= ~(_iou(better, block, offset) > iou_threshold).any(0)
        suppresses = (_iou(block, block, offset) > iou_threshold).triu(1)
        keep_block.copy_(_greedy(keep_block, suppresses))
    return order[keep]


def _greedy(candidates: Tensor, suppresses: Tensor) -> Tensor:
    """Which of B ranked candidates (B,) stay, where kept i removes the later j if ``suppresses[i, j]`` (B, B).

    Each pass takes all boxes of the last one as kept. After pass n the first n boxes are final, and no box changes
    any more once one pass changes none: chains of boxes that free one another are short.
    """
    suppresses = suppresses.float()  # for a matrix product, which is the fastest way to count
    kept = candidates
    while True:
        survivors = candidates & (kept.float() @ suppresses == 0)
        if torch.equal(survivors, kept):
            return kept
        kept = survivors


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS: boxes lower the scores of those they overlap, and fall out below ``min_score``.

    Args:
        boxes: (N, 4), left, top, right, bottom.
        scores: (N,)
        dets: (N, 5), receives the K remaining boxes with their lowered scores.
        iou_threshold: IoU from which methods 0 and 1 lower a score.
        sigma: width of method 2.
        min_score: smallest score of all boxes but the first.
        method: 0 sets scores to 0 (plain NMS), 1 multiplies them by 1 - IoU, 2 by exp(-IoU^2 / sigma).
        offset: 0 or 1, is added to widths and heights.

    Returns:
        (K,) int64 indices of the remaining boxes, best first.

    Source: arXiv:1704.04503 Eq. 2 and 3.
    """
    remaining = torch.arange(len(boxes), device=boxes.device)
    chosen: List[Tensor] = []
    while len(remaining):
        best = scores.argmax()
        dets[len(chosen), :4], dets[len(chosen), 4] = boxes[best], scores[best]
        chosen.append(remaining[best])
        overlaps = _iou(boxes[best, None], boxes, offset)[0].nan_to_num(0.0)
        if method == 2:
            factors = torch.exp(-overlaps.square() / sigma)
        else:
            factors = torch.where(overlaps < iou_threshold, 1.0, 1 - overlaps if method == 1 else 0.0)
        scores = scores * factors
        stays = scores >= min_score
        stays[best] = False
        boxes, scores, remaining = boxes[stays], scores[stays], remaining[stays]
    return torch.stack(chosen) if chosen else remaining


def _iou(boxes: Tensor, others: Tensor, offset: int) -> Tensor:
    """IoU (M, N) of boxes (M, 4) with boxes (N, 4), in the order of mmcv's roundings; NaN where both are empty."""
    left, top, right, bottom = boxes.t().contiguous()[..., None].unbind()  # contiguous: several times faster below
    left_, top_, right_, bottom_ = others.t().contiguous().unbind()
    width = torch.minimum(right, right_).sub_(torch.maximum(left, left_))
    height = torch.minimum(bottom, bottom_).sub_(torch.maximum(top, top_))
    if offset:
        width, height = width.add_(offset), height.add_(offset)
    common = width.clamp_(min=0).mul_(height.clamp_(min=0))
    area = (right - left + offset) * (bottom - top + offset)
    area_ = (right_ - left_ + offset) * (bottom_ - top_ + offset)
    return common / (area + area_).sub_(common)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention: bilinear samples of L maps, zeros around them, added up with weights.

    mmcv calls it for mmdet's own deformable detectors on a GPU. :class:`mmdet_stable.models.layers.DeformableAttention`
    does without it.

    Args:
        value: (B, N, H, D), H heads at the N positions of all maps; float32, float16 or float64.
        value_spatial_shapes: (L, 2) heights and widths of the maps.
        value_level_start_index: not used; maps follow one another.
        sampling_locations: (B, Q, H, L, P, 2) of P points, x and y from 0 to 1.
        attention_weights: (B, Q, H, L, P)
        im2col_step: not used, has no influence on the result.

    Returns:
        (B, Q, H * D)

    Source: arXiv:2010.04159 Eq. 3.
    """
    dtype = _sampling_dtype(value)
    inputs = value.to(dtype), value_spatial_shapes, sampling_locations.to(dtype), attention_weights.to(dtype)
    return _sample(*inputs).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of :func:`ms_deform_attn_forward`, computed once more with autograd.

    ``grad_value``, ``grad_sampling_loc`` and ``grad_attn_weight`` receive them; ``grad_output`` is (B, Q, H * D).
    """
    dtype = _sampling_dtype(value)
    leaves = [x.detach().to(dtype).requires_grad_() for x in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = _sample(leaves[0], value_spatial_shapes, *leaves[1:])
    gradients = torch.autograd.grad(output, leaves, grad_output.to(dtype))
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        target.copy_(gradient)


def _sample(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # which imports this file

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def _sampling_dtype(value: Tensor) -> torch.dtype:
    if value.dtype == torch.bfloat16:  # mmcv has rounded the locations, by up to a third of a cell of a large map
        raise NotImplementedError(
            "mmcv's deformable attention takes no bfloat16, compiled or not. Use float16, or mmdet_stable's "
            'DeformableAttention, which samples in float32.'
        )
    return torch.promote_types(value.dtype, torch.float32)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of logits.

    Args:
        input: (N, C) logits.
        target: (N,) int64 labels from 0 to C - 1; all others mean background.
        weight: (C,) factors of the rows with these labels, which then must not be background; or (0,) for none.
        output: (N, C), receives the loss.
        gamma: power of the modulating factor.
        alpha: weight of positives; negatives have 1 - alpha.

    Source: arXiv:1708.02002 Eq. 5. In logits, so that it is finite and has a gradient also where the compiled
    operator, which takes the logarithm of a rounded score, has reached its bound at a score of about 1e-38.
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of each entry of :func:`sigmoid_focal_loss_forward`, written to ``grad_input`` (N, C)."""
    logits = input.detach().requires_grad_()
    with torch.enable_grad():
        loss = _focal_loss(logits, target, weight, gamma, alpha)
    grad_input.copy_(torch.autograd.grad(loss.sum(), logits)[0])


def _focal_loss(logits: Tensor, labels: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    positive = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    signed = torch.where(positive, logits, -logits)  # logit of the right answer
    loss = -torch.exp(gamma * logsigmoid(-signed)) * logsigmoid(signed)
    loss = torch.where(positive, alpha * loss, (1 - alpha) * loss)
    return loss * weight[labels, None] if weight.numel() else loss
