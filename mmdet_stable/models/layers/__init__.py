from .any_width_dino_decoder import AnyWidthDinoDecoder
from .dab_deformable_decoder import DABDeformableDecoder
from .deformable_attention import DeformableAttention, use_deformable_attention
from .denoising import DNQueryGenerator, denoising_attention_mask
from .look_forward_twice_decoder import LookForwardTwiceDecoder
from .mask_boxes import boxes_of_masks, masks_to_xyxy
from .mask_dino_pixel_decoder import MaskDINOPixelDecoder, PixelDecoderOutputs
from .mask_dino_queries import SelectedTokens, initial_boxes, select_tokens
from .memory_fusion_encoder import MemoryFusionEncoder
from .proposals import with_enough_tokens
from .self_attention import use_fused_self_attention

__all__ = [
    'AnyWidthDinoDecoder',
    'DABDeformableDecoder',
    'DNQueryGenerator',
    'DeformableAttention',
    'LookForwardTwiceDecoder',
    'MaskDINOPixelDecoder',
    'MemoryFusionEncoder',
    'PixelDecoderOutputs',
    'SelectedTokens',
    'boxes_of_masks',
    'denoising_attention_mask',
    'initial_boxes',
    'masks_to_xyxy',
    'select_tokens',
    'use_deformable_attention',
    'use_fused_self_attention',
    'with_enough_tokens',
]
