"""What turns a DETR head of mmdet into one of this package: one set loss for all layers, and optional NMS."""

from typing import Any, Dict, FrozenSet, List, Optional, Tuple

from mmdet.models.dense_heads import DETRHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_stable.models.losses import PositionSupervisedLoss
from mmdet_stable.models.settings import check_head
from mmdet_stable.models.task_modules import StableHungarianAssigner
from mmdet_stable.structures import BatchTargets, Predictions, QueryPlan

from .loss_terms import ClassTerm, IoUTerm, L1Term, LossTerm
from .nms import nms_results
from .set_loss import SetLoss


class SetLossHead(DETRHead):
    """A DETR head whose layers, encoder and denoising queries go through one :class:`SetLoss`.

    A subclass puts it in front of one of mmdet's heads, whose parameters, inputs and loss keys stay the same, and says
    by ``forward`` what the layers predict.

    Args:
        loss_cls: classification loss of the matching queries (decoder layers and encoder), e.g.
            ``PositionSupervisedLoss`` with ``loss_weight=6.0``; ``FocalLoss``, ``QualityFocalLoss`` and
            ``CrossEntropyLoss`` with ``use_sigmoid=True`` work, too.
        dn_cls_loss_weight: ``loss_weight`` of the same loss on denoising queries; None keeps that of ``loss_cls``.
        target_rescale: see :class:`ClassTerm`; the paper prefers ``'max_iou'`` for 900 queries and ``'one'`` for 300.
        sigmoid_eps: see :func:`refined_boxes`; None for that of mmdet's head.
        Others: as in mmdet. ``train_cfg.assigner`` must be a ``StableHungarianAssigner``; ``test_cfg.nms``, where
            given, is the config of a class-wise NMS on the ``max_per_img`` best boxes, e.g. ``dict(type='nms',
            iou_threshold=0.8)``.

    Raises:
        ValueError: for another assigner, a softmax loss, or a ``target_rescale`` that the loss cannot use, and as
            ``check_head``.
    """

    class_agnostic_encoder = True  # whether proposals are supervised, and ranked by the detector, as class 0
    takes_softmax = False
    test_cfg_keys: FrozenSet[str] = frozenset({'max_per_img', 'nms'})
    default_sigmoid_eps = 1e-5

    def __init__(
        self,
        *args: Any,
        loss_cls: ConfigType,
        dn_cls_loss_weight: Optional[float] = None,
        target_rescale: Optional[str] = None,
        sigmoid_eps: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        check_head(type(self).__name__, dict(kwargs, loss_cls=loss_cls, dn_cls_loss_weight=dn_cls_loss_weight))
        super().__init__(*args, loss_cls=loss_cls, **kwargs)
        if self.train_cfg and not isinstance(self.assigner, StableHungarianAssigner):
            raise ValueError(
                f'{type(self).__name__} matches all layers at once: set model.train_cfg.assigner.type='
                f'"StableHungarianAssigner" (the same match_costs work), got {type(self.assigner).__name__}'
            )
        if not (self.loss_cls.use_sigmoid or self.takes_softmax):
            raise ValueError(
                f'{type(self).__name__} scores each class by a sigmoid: set use_sigmoid=True in bbox_head.loss_cls, '
                f'or another loss than {type(self.loss_cls).__name__}'
            )
        if target_rescale is not None and not isinstance(self.loss_cls, PositionSupervisedLoss):
            raise ValueError(
                f'target_rescale={target_rescale!r} rescales the targets of PositionSupervisedLoss, but loss_cls is '
                f'{type(self.loss_cls).__name__}; set target_rescale=None or use PositionSupervisedLoss'
            )
        self.sigmoid_eps = self.default_sigmoid_eps if sigmoid_eps is None else sigmoid_eps
        self.dn_loss_cls = self.loss_cls
        if dn_cls_loss_weight is not None:
            self.dn_loss_cls = MODELS.build(dict(loss_cls, loss_weight=dn_cls_loss_weight))
        self.target_rescale = target_rescale
        self.set_loss = SetLoss(self.loss_terms())

    def loss_terms(self) -> List[LossTerm]:
        """What the set loss consists of."""
        cls_term = ClassTerm(self.loss_cls, self.dn_loss_cls, self.target_rescale, self.sync_cls_avg_factor)
        return [cls_term, L1Term(self.loss_bbox), IoUTerm(self.loss_iou)]

    def loss(
        self,
        batch_data_samples: SampleList,
        plan: Optional[QueryPlan] = None,
        *,
        dn_meta: Optional[Dict[str, int]] = None,
        enc_outputs_class: Optional[Tensor] = None,
        enc_outputs_coord: Optional[Tensor] = None,
        **decoder_outputs: Any,
    ) -> Dict[str, Tensor]:
        """Losses of a training step.

        Args:
            batch_data_samples: with ``gt_instances``.
            plan: what every query is; detectors of mmdet give none.
            dn_meta: mmdet's numbers of denoising queries, where there is no plan.
            enc_outputs_class, enc_outputs_coord: (B, N, C) and (B, N, 4) of the encoder's proposals: all tokens, which
                learn to tell objects, as class 0, from background, or the best ones with classes of their own (DINO).
            decoder_outputs: what ``forward`` takes.

        Returns:
            mmdet's keys: ``loss_cls``, ``d0.loss_cls``, ..., ``enc_loss_cls``, ``dn_loss_cls``, ``d0.dn_loss_cls``,
            ..., ``o2m_loss_cls``, ``d0.o2m_loss_cls``, ..., and the same for ``loss_bbox`` and ``loss_iou``.

        Raises:
            ValueError: for a head that supervises proposals in another way than one of mmdet's detectors makes them.
        """
        logits, boxes_cxcywh = self(**decoder_outputs)
        if plan is None:
            self._check_proposals(dn_meta, enc_outputs_class)
            plan = QueryPlan.of_mmdet(BatchTargets.from_samples(batch_data_samples), logits.shape[2], dn_meta)
        return self.plan_losses(plan, logits, boxes_cxcywh, enc_outputs_class, enc_outputs_coord)

    def _check_proposals(self, dn_meta: Optional[Dict[str, int]], enc_logits: Optional[Tensor]) -> None:
        """Raise ``ValueError`` for proposals of one of mmdet's detectors that this head would supervise wrongly."""
        of_dino = dn_meta is not None  # whose proposals have classes; elsewhere they are class-agnostic
        if enc_logits is None or of_dino != self.class_agnostic_encoder:
            return
        detector, head = ('DINO', 'StableDINOHead') if of_dino else ('DeformableDETR', 'StableDeformableDETRHead')
        raise ValueError(
            f'model.bbox_head.type={type(self).__name__!r}: it supervises the proposals of the encoder in another way '
            f"than mmdet's {detector} makes them; use {head!r}"
        )

    def plan_losses(
        self,
        plan: QueryPlan,
        logits: Tensor,
        boxes_cxcywh: Tensor,
        enc_logits: Optional[Tensor] = None,
        enc_boxes: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        """The losses of all queries of a plan, from (K, B, Q, C) logits and (K, B, Q, 4) boxes of K decoder layers and
        the encoder's proposals, (B, N, C) and (B, N, 4), if there are any."""
        parts = plan.split(logits, boxes_cxcywh)
        if enc_logits is not None and enc_boxes is not None:
            encoder = Predictions(enc_logits[None], enc_boxes[None], ('enc_',))
            parts.append(encoder._replace(class_agnostic=self.class_agnostic_encoder))
        return self.set_loss(plan.supervise(self.assigner, parts), plan.targets)

    def _predict_by_feat_single(
        self, cls_score: Tensor, bbox_pred: Tensor, img_meta: dict, rescale: bool = True
    ) -> InstanceData:
        """Detections of one image, by score; where ``test_cfg.nms`` is set, after class-wise NMS. In float32: neither
        mmcv's NMS nor numpy takes the scores of mixed precision."""
        results = super()._predict_by_feat_single(cls_score.float(), bbox_pred.float(), img_meta, rescale)
        nms_cfg = self.test_cfg.get('nms')
        return results if nms_cfg is None else nms_results(results, nms_cfg)

    def forward(self, *args: Any, **kwargs: Any) -> Tuple[Tensor, ...]:
        """Logits (K, B, Q, C) and normalised cxcywh boxes (K, B, Q, 4) of K decoder layers."""
        raise NotImplementedError
