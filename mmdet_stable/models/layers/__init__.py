from .box_refinement import refined_boxes, refined_proposals
from .conditional_decoders import ConditionalDecoder, ConditionalEncoder, DABDecoder, DABEncoder
from .deformable_attention import DeformableAttention
from .deformable_decoders import DABDeformableDecoder, DeformableDecoder, DinoDecoder
from .denoising import DenoisingQueries, DNQueryGenerator, denoising_queries, marked
from .memory_fusion_encoder import MemoryFusionEncoder
from .proposals import with_enough_tokens
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
    'FusedConditionalAttention',
    'MemoryFusionEncoder',
    'SelfAttention',
    'denoising_queries',
    'marked',
    'refined_boxes',
    'refined_proposals',
    'with_enough_tokens',
]
