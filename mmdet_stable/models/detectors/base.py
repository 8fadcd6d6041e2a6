"""What all detectors of this package have in common: how a batch flows through them."""

import copy
from typing import Any, Dict, Optional, Tuple, Type, Union

import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.models.layers import CdnQueryGenerator
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from mmdet.utils import ConfigType, OptConfigType
from torch import Tensor

from mmdet_stable.models.dense_heads import SetLossHead
from mmdet_stable.models.layers import DNQueryGenerator, denoising_queries
from mmdet_stable.models.settings import check_detector
from mmdet_stable.structures import BatchTargets, Matched, QueryPlan, Segment
from mmdet_stable.utils import check_state_dict_fits

from .one_to_many import OneToMany


class StableDetector(DetectionTransformer):
    """A DETR whose training may add queries to those that it detects with.

    A subclass says what its encoder, decoder and queries are, by mmdet's methods ``pre_transformer``,
    ``forward_encoder``, ``pre_decoder`` and ``forward_decoder``. What surrounds them is the same for all:
    :meth:`forward_transformer` reads from top to bottom.

    Args:
        compile_layers: arguments of ``torch.compile``, by which every layer of encoder and decoder is compiled when it
            first runs, e.g. ``dict()``; None leaves that out. With ``dynamic=False`` they are compiled anew for every
            number of denoising queries, so that it is for inference on images of one size.
        Others: as in mmdet.

    Raises:
        ValueError: for a head of another kind, ``compile_layers`` together with ``encoder.num_cp``, and as
            :func:`check_detector`; while loading, if a checkpoint's weights have other names or shapes.
    """

    head_type: Type[DETRHead] = DETRHead  # what kind of head takes the decoder's outputs
    one_to_many: Optional[OneToMany] = None
    dn_query_generator: Union[DNQueryGenerator, CdnQueryGenerator, None]
    # First the configs, then the modules that are built of them, as in mmdet.
    encoder: Any
    decoder: Any
    positional_encoding: Any
    bbox_head: Any
    embed_dims: int

    def __init__(self, *args: Any, num_queries: int = 100, compile_layers: OptConfigType = None, **kwargs: Any) -> None:
        check_detector(type(self).__name__, dict(kwargs, num_queries=num_queries))
        # mmdet writes into configs, but those of teacher and student, for example, are one.
        kwargs = {name: copy.deepcopy(value) if isinstance(value, dict) else value for name, value in kwargs.items()}
        self._check_head_type(kwargs.get('bbox_head'))
        self.dn_query_generator = None
        self.num_one_to_one = num_queries
        added = self.one_to_many.num_queries if self.one_to_many else 0
        super().__init__(*args, num_queries=num_queries + added, **kwargs)
        if compile_layers is None:
            return
        encoder, decoder = self.coders
        if getattr(encoder, 'num_checkpointed', 0):
            raise ValueError(
                f'compile_layers={dict(compile_layers)} with encoder.num_cp={encoder.num_checkpointed}: torch '
                'does not compile layers under activation checkpointing; leave out one of them'
            )
        for layer in [*encoder.layers, *decoder.layers]:
            layer.compile(**compile_layers)

    @classmethod
    def takes_head(cls, head: type) -> bool:
        """Whether this detector gives a class of heads what it takes."""
        return issubclass(head, cls.head_type)

    def _check_head_type(self, cfg: OptConfigType) -> None:
        kind = MODELS.get(cfg['type']) if cfg is not None and isinstance(cfg['type'], str) else None
        if kind is None or self.takes_head(kind):
            return
        ours = [
            name
            for name, head in MODELS.module_dict.items()
            if isinstance(head, type) and issubclass(head, SetLossHead)
        ]
        fitting = ', '.join(sorted(name for name in ours if self.takes_head(MODELS.get(name))))
        raise ValueError(
            f'model.bbox_head.type={cfg["type"]!r}: {type(self).__name__} does not give this head what it takes; heads '
            f'of mmdet_stable that fit are {fitting}'
        )

    def extract_feat(self, batch_inputs: Tensor) -> Tuple[Tensor, ...]:
        """The neck's features of images (B, 3, H, W), in the weights' precision: mmdet's preprocessor makes images
        of float32."""
        features: Tuple[Tensor, ...] = super().extract_feat(batch_inputs.to(next(self.parameters()).dtype))
        return features

    @property
    def coders(self) -> Tuple[Any, Any]:
        """Encoder and decoder."""
        return self.encoder, self.decoder

    def forward_transformer(
        self, img_feats: Tuple[Tensor, ...], batch_data_samples: OptSampleList = None
    ) -> Dict[str, Any]:
        """From the neck's features to what the head takes.

        Args:
            img_feats: L maps (B, D, H, W).
            batch_data_samples: B samples with image sizes and, in training, with ground truth.

        Returns:
            ``hidden_states`` (K, B, Q, D) of K decoder layers and, where boxes are refined, the ``references`` that
            they start from; in training also the ``plan`` of the queries, and the encoder's proposals.
        """
        # Features become tokens, with their positions and the mask of the batch's padding.
        encoder_inputs, decoder_inputs = self.pre_transformer(img_feats, batch_data_samples)
        # The encoder makes the memory of them, and fuses it where a memory fusion is configured.
        encoded = self.forward_encoder(**encoder_inputs)
        # Queries are learned, or chosen among proposals of the memory, which the head supervises.
        queries, head_inputs = self.pre_decoder(**encoded)
        mask = None
        if self.training:
            # Denoising queries come in front; the plan says what every query is.
            queries, plan = self.plan_queries(queries, batch_data_samples)
            mask = plan.attention_mask()
            head_inputs.update(self.plan_for_head(plan))
        # The decoder turns queries into states, from which the head predicts.
        head_inputs.update(self.forward_decoder(**{**decoder_inputs, **queries}, self_attn_mask=mask))
        return head_inputs

    @property
    def num_matching_queries(self) -> int:
        """Queries beside the denoising ones: at test time, one-to-many queries are gone."""
        return self.num_queries if self.training else self.num_one_to_one

    def detecting_queries(self) -> Optional[Tensor]:
        """(B, Q) bool, which queries the head makes detections of, after a pass through the decoder; None for all."""
        return None

    def plan_queries(
        self, queries: Dict[str, Tensor], batch_data_samples: SampleList
    ) -> Tuple[Dict[str, Tensor], QueryPlan]:
        """The decoder's inputs with denoising queries, where configured, in front of the matching ones, and the plan
        that says so."""
        targets = self.ground_truth(batch_data_samples)
        segments = [Segment('', self.num_one_to_one, Matched())]
        if self.one_to_many is not None:
            segments.append(self.one_to_many.segment)
        if self.dn_query_generator is not None:
            content, boxes_unact, layout = denoising_queries(self.dn_query_generator, targets, batch_data_samples)
            segments.insert(0, Segment('dn_', layout.num_queries, layout))
            added = dict(self.denoising_positions(boxes_unact), query=content)
            queries = {**queries, **{name: torch.cat([value, queries[name]], 1) for name, value in added.items()}}
        return queries, QueryPlan(tuple(segments), targets)

    def ground_truth(self, batch_data_samples: SampleList) -> BatchTargets:
        """What a batch is supervised by."""
        return BatchTargets.from_samples(batch_data_samples)

    def denoising_positions(self, boxes_unact: Tensor) -> Dict[str, Tensor]:
        """What the decoder takes as the positions of queries, for boxes (B, T, 4) before the sigmoid."""
        raise NotImplementedError(f'{type(self).__name__} has no denoising queries')

    def plan_for_head(self, plan: QueryPlan) -> Dict[str, Any]:
        """The plan as the head takes it; mmdet's heads know no plan."""
        return dict(plan=plan) if isinstance(self.bbox_head, SetLossHead) else {}

    def build_dn_query_generator(self, dn_cfg: ConfigType) -> DNQueryGenerator:
        """A generator with the sizes of this detector.

        Raises:
            ValueError: for a head that would not know which ground truths are shown, and where.
        """
        self.require_set_loss_head('the queries of DNQueryGenerator')
        sizes = dict(num_classes=self.bbox_head.num_classes, embed_dims=self.embed_dims)
        return MODELS.build({'type': 'DNQueryGenerator', **dn_cfg, **sizes})

    def require_set_loss_head(self, queries: str) -> None:
        """Raise ``ValueError`` for a head that cannot supervise such queries."""
        if not isinstance(self.bbox_head, SetLossHead):
            raise ValueError(
                f'{type(self.bbox_head).__name__} cannot supervise {queries}; use a head of mmdet_stable, e.g. '
                'bbox_head.type="StableDABDETRHead" or "StableDINOHead"'
            )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        check_state_dict_fits(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
