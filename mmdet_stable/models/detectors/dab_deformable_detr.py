"""DAB-Deformable-DETR, which mmdet does not have: Deformable-DETR whose queries are boxes."""

from typing import Dict, Tuple

from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.detectors import DeformableDETR
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_stable.models.layers import DABDeformableDecoder, MemoryFusionEncoder, with_enough_tokens
from mmdet_stable.utils import CheckedLoading


@MODELS.register_module()
class DABDeformableDETR(CheckedLoading, DeformableDETR):
    """mmdet's ``DeformableDETR`` of any width, with 4-D anchors that every decoder layer refines.

    Args:
        encoder: as in mmdet, plus ``fusion``, see :class:`StableDINO`.
        as_two_stage: take the anchors from the encoder's best proposals instead of learning them. Content is learned
            per query in both cases.
        Others: as in mmdet; ``with_box_refine`` is always on.

    Source: arXiv:2201.12329, as combined with Deformable-DETR by its authors.
    """

    def __init__(self, *args, with_box_refine: bool = True, **kwargs) -> None:
        if not with_box_refine:
            raise ValueError('with_box_refine=False: the anchors of DABDeformableDETR are refined by every layer')
        super().__init__(*args, with_box_refine=True, **kwargs)

    def _init_layers(self) -> None:
        encoder, decoder = self.encoder, self.decoder
        self.encoder = {key: value for key, value in encoder.items() if key != 'fusion'}
        super()._init_layers()
        self.encoder = MemoryFusionEncoder(**encoder)
        self.decoder = DABDeformableDecoder(**decoder)
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)
        if self.as_two_stage:
            del self.pos_trans_fc, self.pos_trans_norm
        else:
            self.anchor_embedding = nn.Embedding(self.num_queries, 4)
            del self.reference_points_fc

    def init_weights(self) -> None:
        # Not DeformableDETR's, which reaches for the layers that are deleted here.
        DetectionTransformer.init_weights(self)
        for parameter in [*self.encoder.parameters(), *self.decoder.parameters()]:
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        if self.as_two_stage:
            nn.init.xavier_uniform_(self.memory_trans_fc.weight)
        nn.init.normal_(self.level_embed)

    def pre_decoder(self, memory: Tensor, memory_mask: Tensor, spatial_shapes: Tensor) -> Tuple[Dict, Dict]:
        """Content and anchors for the decoder; encoder proposals of all N tokens for the head, in training."""
        head_inputs = dict(enc_outputs_class=None, enc_outputs_coord=None) if self.training else {}
        if self.as_two_stage:
            enough = with_enough_tokens(memory, memory_mask, spatial_shapes, self.num_queries)
            features, proposals = self.gen_encoder_output_proposals(*enough)
            scores = self.bbox_head.cls_branches[self.decoder.num_layers](features)
            boxes = (self.bbox_head.reg_branches[self.decoder.num_layers](features) + proposals).sigmoid()
            best = scores[..., 0].topk(self.num_queries, dim=1).indices  # class-agnostic, as in Deformable-DETR
            anchors = boxes.gather(1, best[..., None].expand(-1, -1, 4)).detach()
            if self.training:
                head_inputs = dict(enc_outputs_class=scores, enc_outputs_coord=boxes)
        else:
            anchors = self.anchor_embedding.weight.sigmoid().expand(len(memory), -1, -1)
        query = self.query_embedding.weight.expand(len(memory), -1, -1)
        return dict(query=query, reference_points=anchors, memory=memory), head_inputs

    def forward_decoder(self, query: Tensor, memory: Tensor, memory_mask: Tensor, **inputs) -> Dict:
        """States (K, B, Q, D), and the K + 1 reference boxes (B, Q, 4) around them."""
        states, references = self.decoder(
            query=query, value=memory, key_padding_mask=memory_mask, reg_branches=self.bbox_head.reg_branches, **inputs
        )
        return dict(hidden_states=states, references=references)
