"""Decoder of Deformable-DETR that looks forward twice."""

from typing import Tuple

import torch
from mmdet.models.layers import DeformableDetrTransformerDecoder, inverse_sigmoid
from torch import Tensor, nn


class LookForwardTwiceDecoder(DeformableDetrTransformerDecoder):
    """mmdet's decoder of Deformable-DETR, whose refined boxes keep their gradient for the head.

    Each layer still starts from detached boxes.

    Source: arXiv:2203.03605 Sec. 3.5.
    """

    def forward(self, *args, reference_points: Tensor, reg_branches: nn.ModuleList, **kwargs) -> Tuple[Tensor, Tensor]:
        """As mmdet's: states (K, B, Q, D) of K layers, and the boxes (K, B, Q, 4) that they refine to."""
        states, references = super().forward(
            *args, reference_points=reference_points, reg_branches=reg_branches, **kwargs
        )
        if not self.training:
            return states, references
        # mmdet has detached them: the same once more, from what each layer started with.
        starts = [reference_points, *references[:-1]]
        refined = []
        for branch, state, start in zip(reg_branches, states, starts):
            start = nn.functional.pad(inverse_sigmoid(start), (0, 4 - start.shape[-1]))  # points have no size yet
            refined.append((branch(state) + start).sigmoid())
        return states, torch.stack(refined)
