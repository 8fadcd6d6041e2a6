"""What this package adds to all of mmdet's detectors with deformable encoder."""

from typing import Optional, Tuple

import torch
from mmdet.utils import OptConfigType
from torch import Tensor

from mmdet_stable.models.layers import (
    MemoryFusionEncoder,
    use_deformable_attention,
    use_fused_self_attention,
    with_enough_tokens,
)
from mmdet_stable.models.settings import check_detector
from mmdet_stable.utils import CheckedLoading


class MemoryFusionDetector(CheckedLoading):
    """To be inherited from before mmdet's ``DeformableDETR`` or a detector derived from it.

    Brings memory fusion, proposals in images of few tokens, faster attention, and errors where checkpoints do not fit.

    Args:
        encoder: as in mmdet, plus ``fusion`` and ``num_cp`` of :class:`MemoryFusionEncoder`, e.g.
            ``dict(fusion=dict(type='DenseMemoryFusion'), num_cp=6)``.
        compile_layers: arguments of ``torch.compile``, by which every layer of encoder and decoder is compiled when it
            first runs, e.g. ``dict()``; None leaves that out. With ``dynamic=False`` they are compiled anew for every
            number of denoising queries, so that it is for inference on images of one size.
        Others: as in mmdet.

    Raises:
        ValueError: for ``compile_layers`` together with ``encoder.num_cp``, and as ``check_detector``.
    """

    fills_up_queries = True  # where an image has fewer tokens than there are queries

    def __init__(self, *args, compile_layers: OptConfigType = None, **kwargs) -> None:
        check_detector(type(self).__name__, kwargs)
        super().__init__(*args, **kwargs)
        use_deformable_attention(self.encoder)
        use_deformable_attention(self.decoder)
        use_fused_self_attention(self.decoder)
        if compile_layers is not None:
            if self.encoder.num_checkpointed:
                raise ValueError(
                    f'compile_layers={dict(compile_layers)} with encoder.num_cp={self.encoder.num_checkpointed}: torch '
                    'does not compile layers under activation checkpointing; leave out one of them'
                )
            for layer in [*self.encoder.layers, *self.decoder.layers]:
                layer.compile(**compile_layers)

    def _init_layers(self) -> None:
        encoder = self.encoder
        self.encoder = {key: value for key, value in encoder.items() if key not in ('fusion', 'num_cp')}
        super()._init_layers()
        self.encoder = MemoryFusionEncoder(**encoder)

    def gen_encoder_output_proposals(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """mmdet's, also for images of fewer tokens than queries; waits for the device once, not at every size."""
        if memory_mask is None:
            memory_mask = torch.zeros(memory.shape[:2], dtype=torch.bool, device=memory.device)
        needed = self.num_queries if self.fills_up_queries else 0
        enough = with_enough_tokens(memory, memory_mask, spatial_shapes.tolist(), needed)
        return super().gen_encoder_output_proposals(*enough)
