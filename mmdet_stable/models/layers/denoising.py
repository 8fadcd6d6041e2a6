"""Queries made of noised ground truths, which the decoder learns to put right (arXiv:2203.01305, Sec. 4)."""

from typing import Any, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmdet.models.layers import CdnQueryGenerator, inverse_sigmoid
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_stable.structures import BatchTargets, DenoisingLayout

Scales = Tuple[float, float]
NEGATIVES = (None, 'near', 'far')


def centre_size_noise(boxes_cxcywh: Tensor, draws: Tensor, scales: Scales) -> Tensor:
    """DN-DETR's noise: the centre moves by up to l1 / 2 of the box, width and height change by up to l2.

    Args:
        boxes_cxcywh: (..., 4), normalised.
        draws: (..., 4) in [-1, 1], or up to 2 in size for negatives that lie further away.
        scales: l1 and l2.

    Returns:
        (..., 4) cxcywh in [0, 1].
    """
    wh = boxes_cxcywh[..., 2:]
    reach = torch.cat([wh * (scales[0] / 2), wh * scales[1]], -1)
    return (boxes_cxcywh + draws * reach).clamp(0, 1)


def corner_noise(boxes_cxcywh: Tensor, draws: Tensor, scales: Scales) -> Tensor:
    """DINO's noise: each corner moves by up to half the box's size times l1. As :func:`centre_size_noise`."""
    half = torch.cat([boxes_cxcywh[..., 2:]] * 2, -1) * (scales[0] / 2)
    return bbox_xyxy_to_cxcywh((bbox_cxcywh_to_xyxy(boxes_cxcywh) + draws * half).clamp(0, 1))


BOX_NOISES = {'centre_size': centre_size_noise, 'corners': corner_noise}


def flip_labels(labels: Tensor, draws: Tensor, random_labels: Tensor, probability: float) -> Tensor:
    """Labels of any shape, replaced by ``random_labels`` where ``draws`` in [0, 1) lie below the probability."""
    return torch.where(draws < probability, random_labels, labels)


class DenoisingQueries(NamedTuple):
    """The T denoising queries of each of B images.

    Attributes:
        content: (B, T, D).
        boxes_unact: (B, T, 4) cxcywh before the sigmoid.
        layout: which ground truth each of them shows.
    """

    content: Tensor
    boxes_unact: Tensor
    layout: DenoisingLayout


@MODELS.register_module()
class DNQueryGenerator(BaseModule):
    """Noised ground truths as queries, in groups of which each shows every ground truth once.

    The losses need a head of this package. Nothing loops over boxes or images, and nothing waits for the device.

    Args:
        num_classes, embed_dims: set by the detector.
        num_groups: groups per image (DN-DETR); None where ``num_queries`` is given.
        num_queries: budget (DINO): as many groups as fit, ``max(1, num_queries // G)`` for G boxes in the image with
            most; negatives come on top of it.
        max_queries: no image ever gets more denoising queries, negatives included; of a crowded image, each step shows
            a random part of the ground truths.
        box_noise: ``'centre_size'`` (DN-DETR) or ``'corners'`` (DINO).
        box_noise_scale: l1 and l2, or one number for both; 0 for none. Corners have one only.
        label_flip_prob: share of labels replaced by a random class.
        negatives: a second, background query for each ground truth: None, ``'near'`` (noise of the same range, as in
            the released Stable-DINO) or ``'far'`` (once to twice as far, DINO).
        indicator: mark denoising queries by 1 in the last channel of the content; the detector marks its matching
            queries by 0 there, and where it has no content for them, takes the label embedding of "unknown" (DN-DETR).
        hide_denoising, isolate_groups: rules of the attention mask, see :class:`DenoisingLayout`; the paper switches
            them off in an ablation.
        ignore_padding: whether the slots that an image with fewer boxes leaves empty are kept out of attention and
            loss. False as in the reference implementations, where they count as background.
        sigmoid_eps: how close to 0 and 1 boxes may come before their inverse sigmoid is cut off; see
            :func:`refined_boxes`.

    Raises:
        ValueError: for settings out of range, or a budget above ``max_queries``.

    Source: arXiv:2203.01305 Sec. 4.3 to 4.5; arXiv:2203.03605 Sec. 3.3 for contrastive negatives.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int,
        num_groups: Optional[int] = None,
        num_queries: Optional[int] = None,
        max_queries: int = 600,
        box_noise: str = 'centre_size',
        box_noise_scale: Union[float, Scales] = 0.4,
        label_flip_prob: float = 0.2,
        negatives: Optional[str] = None,
        indicator: bool = True,
        hide_denoising: bool = True,
        isolate_groups: bool = True,
        ignore_padding: bool = True,
        sigmoid_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        wanted = num_queries if num_groups is None else num_groups
        if wanted is None or None not in (num_groups, num_queries):
            raise ValueError(
                f'num_groups={num_groups}, num_queries={num_queries}: give one of them, e.g. num_groups=5 (DN-DETR) or '
                'num_queries=100 (DINO)'
            )
        if box_noise not in BOX_NOISES:
            raise ValueError(f'box_noise={box_noise!r}: known are {list(BOX_NOISES)}')
        if negatives not in NEGATIVES:
            raise ValueError(f'negatives={negatives!r}: known are {NEGATIVES}')
        scales = tuple(box_noise_scale) if isinstance(box_noise_scale, Sequence) else (box_noise_scale,) * 2
        if len(scales) != 2 or min(scales) < 0 or not 0 <= label_flip_prob <= 1:
            raise ValueError(
                f'box_noise_scale={box_noise_scale} must be one or two numbers from 0 up, '
                f'label_flip_prob={label_flip_prob} a number from 0 to 1'
            )
        self.queries_per_box = 2 if negatives else 1
        needed = wanted * self.queries_per_box
        if not 1 <= needed <= max_queries:
            raise ValueError(
                f'{"num_queries" if num_groups is None else "num_groups"}={wanted} needs {needed} queries for an image '
                f'with one box, which must lie between 1 and max_queries={max_queries}'
            )
        self.num_classes = num_classes
        self.num_groups = num_groups
        self.num_queries = num_queries
        self.max_queries = max_queries
        self.box_noise = BOX_NOISES[box_noise]
        self.box_noise_scale: Scales = scales
        self.label_flip_prob = label_flip_prob
        self.negatives = negatives
        self.indicator = indicator
        self.hide_denoising = hide_denoising
        self.isolate_groups = isolate_groups
        self.ignore_padding = ignore_padding
        self.sigmoid_eps = sigmoid_eps
        self.noise_factor = 1.0  # of both noises, not of the offset of far negatives; see DenoisingNoiseHook
        self.label_embedding = nn.Embedding(num_classes + indicator, embed_dims - indicator)

    def forward(self, targets: BatchTargets) -> DenoisingQueries:
        """The denoising queries of a batch."""
        layout = self.layout(targets)
        labels, boxes = self.noised(layout.spread(targets.labels), layout.spread(targets.boxes_cxcywh), layout)
        shown = layout.shown(labels.device)[..., None]
        return DenoisingQueries(
            self.content(labels) * shown, inverse_sigmoid(boxes, eps=self.sigmoid_eps) * shown, layout
        )

    def layout(self, targets: BatchTargets) -> DenoisingLayout:
        """How many groups and slots this batch needs, and which ground truths are shown in a crowded one."""
        most = max(targets.num_gts)
        num_groups = self.num_groups or max((self.num_queries or 0) // max(most, 1), 1)
        num_slots = min(most, self.max_queries // (num_groups * self.queries_per_box))
        gt_inds = None
        if num_slots < most:
            order = torch.rand(targets.labels.shape, device=targets.labels.device).masked_fill(~targets.valid, 2.0)
            gt_inds = order.argsort(1)[:, :num_slots]
        num_shown = tuple(min(num, num_slots) for num in targets.num_gts)
        return DenoisingLayout(
            num_groups,
            num_slots,
            num_shown,
            with_negatives=self.negatives is not None,
            gt_inds=gt_inds,
            ignore_padding=self.ignore_padding,
            hide_denoising=self.hide_denoising,
            isolate_groups=self.isolate_groups,
        )

    def noised(self, labels: Tensor, boxes_cxcywh: Tensor, layout: DenoisingLayout) -> Tuple[Tensor, Tensor]:
        """Noise for the labels (B, T) and boxes (B, T, 4) of all slots."""
        draws = torch.rand_like(boxes_cxcywh) * self.noise_factor
        if self.negatives == 'far':
            draws = draws + layout.is_negative(boxes_cxcywh.device)[:, None]
        draws = draws * torch.randint_like(draws, 2).mul(2).sub(1)
        flip = self.label_flip_prob * self.noise_factor
        random_labels = torch.randint_like(labels, self.num_classes)
        labels = flip_labels(labels, torch.rand(labels.shape, device=labels.device), random_labels, flip)
        return labels, self.box_noise(boxes_cxcywh, draws, self.box_noise_scale)

    def content(self, labels: Tensor) -> Tensor:
        """(..., D) embedding of labels, with the indicator 1 where configured."""
        embedded = self.label_embedding(labels)
        return nn.functional.pad(embedded, (0, 1), value=1.0) if self.indicator else embedded

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Checkpoints of detectors without denoising have no labels: "unknown" starts as their zero content then."""
        if self.indicator and f'{prefix}label_embedding.weight' not in state_dict:
            nn.init.zeros_(self.label_embedding.weight[self.num_classes])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def unknown_content(self) -> Tensor:
        """(D,) content of matching queries that have none of their own: the embedding of "unknown", marked; zeros
        without the indicator."""
        if not self.indicator:
            return torch.zeros_like(self.label_embedding.weight[0])
        return marked(self.label_embedding.weight[self.num_classes])


def marked(content: Tensor) -> Tensor:
    """Content (..., D - 1) of matching queries, with the indicator 0 as its last channel (arXiv:2203.01305, 4.5)."""
    return nn.functional.pad(content, (0, 1))


def denoising_queries(
    generator: Union[DNQueryGenerator, CdnQueryGenerator], targets: BatchTargets, samples: SampleList
) -> DenoisingQueries:
    """The queries of this package's generator, or of mmdet's, which makes them of data samples."""
    if not isinstance(generator, CdnQueryGenerator):
        return generator(targets)
    content, boxes, _, dn_meta = generator(samples)
    # Without any box, this keeps the label embedding in the graph, as distributed training needs.
    content = content + generator.label_embedding.weight[0, 0] * 0
    return DenoisingQueries(content, boxes, DenoisingLayout.of_mmdet(dn_meta, targets.num_gts))
