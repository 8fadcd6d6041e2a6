"""The branches of MaskDINO: class, box and mask embedding, shared by all decoder layers and the encoder."""

import math
from typing import NamedTuple, Optional, Tuple

import torch
from mmdet.models.layers import MLP
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_stable.models.layers import refined_boxes
from mmdet_stable.models.layers.mask_dino_queries import LOGIT_EPS, SelectedTokens


class MaskPredictions(NamedTuple):
    """Predictions of K layers over the same queries.

    The mask of a query, (h, w) logits, is its embedding times the mask features (B, E, h, w), which all layers share.
    It is kept as the embedding, because training needs it at some points only, and inference of some queries only.

    Attributes:
        logits: (K, B, Q, C) raw class scores; of C + 1 classes, background last, with ``softmax``.
        boxes_cxcywh: (K, B, Q, 4), normalised by the padded input to [0, 1].
        mask_embeddings: (K, B, Q, E).
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    mask_embeddings: Tensor


class MaskDINOPredictor(BaseModule):
    """One class, one box and one mask branch, and how they are applied to the encoder's and decoder's states.

    Args:
        num_classes: C.
        embed_dims: D, of the states.
        mask_dims: E, of the mask features.
        softmax: whether classes are scored by a softmax, with background as one more class (ADE20K, Cityscapes).
        cls_prior: score of every class before training, by the bias of the class branch; None for the default
            initialisation, as released, with which the first total loss is near 2e4.

    Raises:
        ValueError: for a ``cls_prior`` that is not between 0 and 1.

    Source: arXiv:2206.02777 Sec. 3.3.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int = 256,
        mask_dims: int = 256,
        softmax: bool = False,
        cls_prior: Optional[float] = None,
    ) -> None:
        super().__init__()
        if cls_prior is not None and not 0 < cls_prior < 1:
            raise ValueError(f'cls_prior={cls_prior}: a score between 0 and 1, e.g. 0.01, or None')
        self.cls_prior = cls_prior
        self.cls = nn.Linear(embed_dims, num_classes + softmax)
        self.reg = MLP(embed_dims, embed_dims, 4, 3)
        self.mask_embed = MLP(embed_dims, embed_dims, mask_dims, 3)

    def init_weights(self) -> None:
        """Boxes start as their references."""
        nn.init.zeros_(self.reg.layers[-1].weight)
        nn.init.zeros_(self.reg.layers[-1].bias)
        if self.cls_prior is not None:
            nn.init.constant_(self.cls.bias, -math.log(1 / self.cls_prior - 1))

    def forward(self, states: Tensor, norm: nn.Module) -> Tuple[Tensor, Tensor]:
        """Class logits (..., C) and mask embeddings (..., E) of states (..., D), which get the decoder's norm first.

        States that a DINO decoder has normed are normed again, as in the released code.
        """
        states = norm(states)
        return self.cls(states), self.mask_embed(states)

    def boxes(self, states: Tensor, references: Tensor) -> Tensor:
        """(..., 4) boxes, normalised cxcywh in float32, of states (..., D) and the boxes (..., 4) they refine."""
        return refined_boxes(self.reg, states, references, LOGIT_EPS)

    def predict_layers(
        self, norm: nn.Module, content: Optional[Tensor], states: Tensor, references: Tensor
    ) -> MaskPredictions:
        """Predictions of the queries before the decoder and after each of its K - 1 layers.

        Args:
            norm: the decoder's.
            content: (B, Q, D) of the queries before the decoder; None leaves their predictions out
                (``initial_pred=False``), so that there are K decoder layers.
            states: (K - 1, B, Q, D) of the decoder's layers, after its norm.
            references: (K, B, Q, 4) boxes, the initial ones first. Each layer refines those before it; the initial
                ones are the boxes of the queries before the decoder. They have a gradient only where they are learned,
                that is, without query selection.
        """
        boxes = self.boxes(states, references[:-1])
        if content is not None:
            states = torch.cat([content[None], states])
            boxes = torch.cat([references[:1], boxes])
        logits, embeddings = self(states, norm)
        return MaskPredictions(logits, boxes, embeddings)

    def predict_tokens(self, norm: nn.Module, tokens: SelectedTokens) -> MaskPredictions:
        """The encoder's own predictions at the selected tokens: one layer, ``'enc_'`` in the loss keys."""
        logits, embeddings = self(tokens.content, norm)
        return MaskPredictions(logits[None], tokens.boxes_unact.sigmoid()[None], embeddings[None])
