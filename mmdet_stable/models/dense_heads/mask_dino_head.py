"""The head of MaskDINO: boxes, classes and masks of all layers, their losses, and results at test time."""

from typing import Any, Dict, List, Optional, Sequence

import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import ConfigType, OptConfigType
from torch import Tensor, nn

from mmdet_stable.models.losses import PointSampler, PositionSupervisedLoss
from mmdet_stable.models.task_modules import random_points
from mmdet_stable.models.task_modules.position_metric import check_position_metric
from mmdet_stable.structures import DenoisingLayout, MaskSamples, Matched, PredictedMasks, Predictions, QueryPlan

from .loss_terms import ClassTerm, IoUTerm, L1Term, LossTerm, PairTerm
from .mask_dino_predictor import MaskDINOPredictor, MaskPredictions
from .mask_inference import ImagePredictions, ImageSizes, MaskInference
from .mask_terms import MaskClassTerm, MaskLosses, MaskTerm, SoftmaxClassTerm, ThingsOnly
from .set_loss_head import SetLossHead

DENOISING = ('seg', 'standard')


@MODELS.register_module()
class MaskDINOHead(SetLossHead, DeformableDETRHead):
    """One class, box and mask branch for all decoder layers, for the queries before them, and for the encoder.

    Args:
        num_classes: C.
        mask_dims: E, channels of the mask features.
        num_things: classes from this number on are stuff; None where all are things.
        loss_cls: a sigmoid loss, e.g. ``FocalLoss`` or ``PositionSupervisedLoss``; or ``CrossEntropyLoss`` with
            ``use_sigmoid=False`` and ``class_weight`` of C + 1 numbers, background last (semantic segmentation).
        loss_mask_weight, loss_dice_weight: factors of the losses of masks.
        points: arguments of :class:`PointSampler`; its ``num_points`` are also those at which matching compares masks.
        share_points: whether all layers are matched at the same points, which is faster; otherwise each draws its own,
            as in the released code.
        dn: ``'seg'`` for denoising queries with masks, ``'standard'`` for boxes and classes only; without denoising
            queries, leave out the detector's ``dn_cfg``.
        things_only_boxes: no box loss for stuff (panoptic segmentation). For the cost, see ``ThingsOnlyCost``.
        cls_prior: see :class:`MaskDINOPredictor`.
        position_metric: what ``PositionSupervisedLoss`` takes for the position: ``'box'``, ``'mask'`` or ``'mean'``.
        position_supervise_initial_dn: whether it supervises denoising queries before the first decoder layer, too,
            whose content cannot know the noise of their box. By default their target is 1.
        Others: see :class:`SetLossHead`. ``test_cfg`` holds arguments of :class:`MaskInference`.

    Raises:
        ValueError: for an unknown ``dn`` or ``position_metric``, ``things_only_boxes`` without ``num_things``, or a
            softmax loss whose class weights do not fit.

    Source: arXiv:2206.02777; position by arXiv:2304.04742, whose Table 4 gives no details of it.
    """

    class_agnostic_encoder = False
    takes_softmax = True
    test_cfg_keys = MaskInference.settings()

    def __init__(
        self,
        *args: Any,
        num_classes: int,
        mask_dims: int = 256,
        num_things: Optional[int] = None,
        loss_mask_weight: float = 5.0,
        loss_dice_weight: float = 5.0,
        points: OptConfigType = None,
        share_points: bool = True,
        dn: str = 'seg',
        things_only_boxes: bool = False,
        cls_prior: Optional[float] = None,
        position_metric: str = 'box',
        position_supervise_initial_dn: bool = False,
        test_cfg: Optional[ConfigType] = None,
        **kwargs: Any,
    ) -> None:
        if dn not in DENOISING:
            raise ValueError(f'bbox_head.dn={dn!r}: known are {DENOISING}; leave out dn_cfg for no denoising queries')
        if things_only_boxes and num_things is None:
            raise ValueError('bbox_head.things_only_boxes=True: say by bbox_head.num_things which classes are things')
        self.mask_dims = mask_dims
        self.num_things = num_classes if num_things is None else num_things
        self.mask_losses = MaskLosses(PointSampler(**(points or {})))
        self.mask_loss_weights = dict(mask=loss_mask_weight, dice=loss_dice_weight)
        self.share_points = share_points
        self.dn = dn
        self.things_only_boxes = things_only_boxes
        self.cls_prior = cls_prior
        self.position_metric = check_position_metric(position_metric)
        self.position_supervise_initial_dn = position_supervise_initial_dn
        super().__init__(*args, num_classes=num_classes, test_cfg=test_cfg, **kwargs)
        self.inference = MaskInference(self.num_things, num_classes, self.softmax, **(test_cfg or {}))

    def _init_layers(self) -> None:
        self.predictor = MaskDINOPredictor(
            self.num_classes, self.embed_dims, self.mask_dims, self.softmax, self.cls_prior
        )

    def init_weights(self) -> None:
        self.predictor.init_weights()

    @property
    def softmax(self) -> bool:
        """Whether classes are scored by a softmax, with background as one more class."""
        return not self.loss_cls.use_sigmoid

    @property
    def cls_branches(self) -> List[nn.Module]:
        """The class branch of each decoder layer and of the encoder: always the same."""
        return [self.predictor.cls] * self.num_pred_layer

    @property
    def reg_branches(self) -> List[nn.Module]:
        """The box branch of each decoder layer and of the encoder: always the same."""
        return [self.predictor.reg] * self.num_pred_layer

    def loss_terms(self) -> List[LossTerm]:
        if self.softmax:
            weights = self.loss_cls.class_weight
            if weights is None or len(weights) != self.num_classes + 1:
                raise ValueError(
                    f'bbox_head.loss_cls.class_weight={weights}: give num_classes + 1 = {self.num_classes + 1} '
                    'numbers, that of background, e.g. 0.1, last'
                )
            cls_term: ClassTerm = SoftmaxClassTerm(self.loss_cls, self.dn_loss_cls)
        else:
            cls_term = MaskClassTerm(
                self.loss_cls,
                self.dn_loss_cls,
                self.target_rescale,
                self.sync_cls_avg_factor,
                position_metric=self.position_metric,
                num_things=self.num_things if self.things_only_boxes else None,
            )
        boxes: List[PairTerm] = [L1Term(self.loss_bbox), IoUTerm(self.loss_iou)]
        if self.things_only_boxes:
            boxes = [ThingsOnly(term, self.num_things) for term in boxes]
        masks = [MaskTerm(self.mask_losses, kind, weight) for kind, weight in self.mask_loss_weights.items()]
        return [cls_term, *boxes, *masks]

    def forward(
        self,
        hidden_states: Tensor,
        references: Sequence[Tensor],
        norm: nn.Module,
        mask_features: Tensor,
        content: Optional[Tensor] = None,
    ) -> MaskPredictions:
        """Predictions of all layers; see :meth:`MaskDINOPredictor.predict_layers`. Masks are their embeddings times
        ``mask_features`` (B, E, h, w)."""
        return self.predictor.predict_layers(norm, content, hidden_states, torch.stack(list(references)))

    def loss(
        self,
        batch_data_samples: SampleList,
        plan: Optional[QueryPlan] = None,
        *,
        encoder: Optional[MaskPredictions] = None,
        **decoder_outputs: Any,
    ) -> Dict[str, Tensor]:
        """Losses of a training step.

        Args:
            plan: what every query is; its targets have masks.
            encoder: its predictions at the tokens that became queries; None where queries are learned.
            decoder_outputs: what ``forward`` takes, by name.

        Returns:
            ``loss_cls``, ``loss_bbox``, ``loss_iou``, ``loss_mask`` and ``loss_dice`` with mmdet's prefixes; ``d0.`` is
            that of the queries before the first decoder layer, where these are supervised.

        Raises:
            ValueError: without a plan.
        """
        if plan is None:
            raise ValueError('MaskDINOHead.loss needs a plan, as the detector MaskDINO gives it')
        layers = self(**decoder_outputs)
        mask_features = decoder_outputs['mask_features']
        num_layers = len(layers.logits) + (encoder is not None)
        points = self.match_points(num_layers, len(mask_features), mask_features.device)
        samples = MaskSamples(mask_features, plan.targets.required_masks(), points)
        masks = PredictedMasks(layers.mask_embeddings, mask_features, samples)
        parts = plan.split(layers.logits, layers.boxes_cxcywh, masks)
        has_initial = decoder_outputs.get('content') is not None
        parts = [
            part
            for segment in parts
            for part in (self.denoising_parts(segment, has_initial) if _is_denoising(segment) else [segment])
        ]
        if encoder is not None:
            masks = PredictedMasks(encoder.mask_embeddings, mask_features, samples, first_layer=num_layers - 1)
            parts.append(Predictions(encoder.logits, encoder.boxes_cxcywh, ('enc_',), Matched(), masks=masks))
        return self.set_loss(plan.supervise(self.assigner, parts), plan.targets)

    def match_points(self, num_layers: int, num_images: int, device: torch.device) -> Tensor:
        """(K or 1, B, P, 2) points at which matching compares masks."""
        return random_points(num_layers, num_images, self.mask_losses.sampler.num_points, device, self.share_points)

    def denoising_parts(self, part: Predictions, has_initial: bool) -> List[Predictions]:
        """How the predictions of denoising queries are supervised.

        Args:
            part: of all layers.
            has_initial: whether the first layer is that of the queries before the decoder. Without query selection,
                this one has no loss, as in the released code.
        """
        if self.dn == 'standard':
            part = part._replace(masks=None)
        if not has_initial:
            return [part]
        initial, others = part.layers(slice(0, 1)), part.layers(slice(1, None))
        if not self.as_two_stage:
            return [others]
        if self.position_supervise_initial_dn or not isinstance(self.loss_cls, PositionSupervisedLoss):
            return [part]
        return [initial._replace(plain_targets=True), others]

    def predict(
        self,
        hidden_states: Tensor,
        references: Sequence[Tensor],
        norm: nn.Module,
        mask_features: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = True,
    ) -> List[Dict[str, Any]]:
        """Results of B images, from the last layer: see :class:`MaskInference`."""
        last = self(hidden_states[-1:], references[-2:], norm, mask_features)
        results = []
        for image, sample in enumerate(batch_data_samples):
            image_shape = tuple(sample.img_shape[:2])
            sizes = ImageSizes(
                tuple(sample.batch_input_shape), image_shape, tuple(sample.ori_shape[:2]) if rescale else image_shape
            )
            logits, boxes_cxcywh, mask_embeddings = (values[0, image] for values in last)
            predictions = ImagePredictions(logits, boxes_cxcywh, mask_embeddings, mask_features[image], sizes)
            results.append(self.inference(predictions))
        return results


def _is_denoising(part: Predictions) -> bool:
    return isinstance(part.supervision, DenoisingLayout)
