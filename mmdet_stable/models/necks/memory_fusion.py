"""Memory fusion: the encoder's output meets the features that entered it."""

from typing import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn


class FusionProjection(nn.Module):
    """Linear on the channel concatenation of several memories, then LayerNorm.

    The concatenation is never built: the weight's slices are applied one after another into one sum. Parameters are
    those of ``nn.Linear(num_inputs * embed_dims, embed_dims)``, in the order of the inputs, so reference weights load.

    Args:
        num_inputs: memories to fuse, at least 2.
        embed_dims: channels D of each memory and of the result.
    """

    def __init__(self, num_inputs: int, embed_dims: int) -> None:
        super().__init__()
        self.proj = nn.Linear(num_inputs * embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, memories: Sequence[Tensor]) -> Tensor:
        """Fuse ``num_inputs`` memories of (B, N, D) to (B, N, D)."""
        slices = self.proj.weight.chunk(len(memories), dim=1)
        fused = F.linear(memories[0], slices[0], self.proj.bias).flatten(0, 1)
        for memory, weight in zip(memories[1:], slices[1:]):
            fused = torch.addmm(fused, memory.flatten(0, 1), weight.T)
        return self.norm(fused).view_as(memories[0])


class MemoryFusion(nn.Module):
    """How an encoder of K layers combines its memories m_0 (its input) and m_k (output of layer k).

    A subclass overrides :meth:`layer_input`, :meth:`forward`, or both; this class fuses nothing.

    Args:
        embed_dims: channels D.
        num_layers: encoder layers K, at least 1.
    """

    def __init__(self, embed_dims: int, num_layers: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_layers = num_layers

    def layer_input(self, memories: Sequence[Tensor]) -> Tensor:
        """Input of the next layer, (B, N, D), given all memories so far: m_0 ... m_{k-1} for layer k."""
        return memories[-1]

    def forward(self, memories: Sequence[Tensor]) -> Tensor:
        """The encoder's output (B, N, D), given m_0 ... m_K of (B, N, D) each."""
        return memories[-1]


@MODELS.register_module()
class SimpleMemoryFusion(MemoryFusion):
    """fuse(m_0, m_K) after the encoder (arXiv:2304.04742 Fig. 4a)."""

    def __init__(self, embed_dims: int, num_layers: int) -> None:
        super().__init__(embed_dims, num_layers)
        self.fusion = FusionProjection(2, embed_dims)

    def forward(self, memories: Sequence[Tensor]) -> Tensor:
        return self.fusion((memories[0], memories[-1]))


@MODELS.register_module()
class UShapedMemoryFusion(MemoryFusion):
    """Layers mirrored as in a U-Net: past the middle, m_j is fused with m_{K-j} before it is used (Fig. 4b).

    For K = 6: fuse(m_4, m_2) enters layer 5, fuse(m_5, m_1) enters layer 6 and fuse(m_6, m_0) is the output.
    """

    def __init__(self, embed_dims: int, num_layers: int) -> None:
        super().__init__(embed_dims, num_layers)
        self.fusions = nn.ModuleDict(
            {str(j): FusionProjection(2, embed_dims) for j in range(num_layers // 2 + 1, num_layers + 1)}
        )

    def layer_input(self, memories: Sequence[Tensor]) -> Tensor:
        j = len(memories) - 1
        if str(j) not in self.fusions:
            return memories[j]
        return self.fusions[str(j)]((memories[j], memories[self.num_layers - j]))

    def forward(self, memories: Sequence[Tensor]) -> Tensor:
        return self.layer_input(memories)


@MODELS.register_module()
class DenseMemoryFusion(MemoryFusion):
    """fuse(m_0, m_1, ..., m_K) after the encoder (Fig. 4c); the paper's default."""

    def __init__(self, embed_dims: int, num_layers: int) -> None:
        super().__init__(embed_dims, num_layers)
        self.fusion = FusionProjection(num_layers + 1, embed_dims)

    def forward(self, memories: Sequence[Tensor]) -> Tensor:
        return self.fusion(memories)
