from .box_refinement import at_least_float32, refined_boxes, refined_proposals
from .conditional_decoders import ConditionalDecoder, ConditionalEncoder, DABDecoder, DABEncoder
from .deformable_attention import DeformableAttention
from .deformable_decoders import DABDeformableDecoder, DeformableDecoder, DinoDecoder
from .denoising import DenoisingQueries, DNQueryGenerator, denoising_queries, marked
from .level_sizes import LevelSizes, level_sizes, level_starts, sizes_on_device, sizes_on_host
from .mask_boxes import boxes_of_masks, masks_to_xyxy
from .mask_dino_pixel_decoder import MaskDINOPixelDecoder, PixelDecoderOutputs
from .mask_dino_queries import FirstBoxes, SelectedTokens, initial_boxes, select_tokens
from .memory_fusion_encoder import MemoryFusionEncoder
from .proposals import (
    DistinctSelection,
    Selection,
    anchors_unact,
    best_tokens,
    distinct_boxes,
    with_enough_tokens,
)
from .self_attention import FusedConditionalAttention, SelfAttention
from .transformer_layers import DeformableDecoderLayer

__all__ = [
    'ConditionalDecoder',
    'ConditionalEncoder',
    'DABDecoder',
    'DABDeformableDecoder',
    'DABEncoder',
    'DNQueryGenerator',
    'DeformableAttention',
    'DeformableDecoder',
    'DeformableDecoderLayer',
    'DenoisingQueries',
    'DinoDecoder',
    'DistinctSelection',
    'FirstBoxes',
    'FusedConditionalAttention',
    'LevelSizes',
    'MaskDINOPixelDecoder',
    'MemoryFusionEncoder',
    'PixelDecoderOutputs',
    'SelectedTokens',
    'Selection',
    'SelfAttention',
    'anchors_unact',
    'at_least_float32',
    'best_tokens',
    'boxes_of_masks',
    'denoising_queries',
    'distinct_boxes',
    'initial_boxes',
    'level_sizes',
    'level_starts',
    'marked',
    'masks_to_xyxy',
    'refined_boxes',
    'refined_proposals',
    'select_tokens',
    'sizes_on_device',
    'sizes_on_host',
    'with_enough_tokens',
]
