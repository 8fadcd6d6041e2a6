"""Ground truth of a batch."""

from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .mask_targets import MaskTargets

NORMALISERS = dict(image='img_shape', input='batch_input_shape')


class BatchTargets(NamedTuple):
    """Ground truth of a batch, padded to the image with most boxes.

    Attributes:
        labels: (B, G) int64; 0 in padding.
        boxes_cxcywh: (B, G, 4) normalised; 0 in padding.
        boxes_xyxy: (B, G, 4) in pixels of the network's input; 0 in padding.
        valid: (B, G) bool; True for ground truth, False for padding.
        whwh: (B, 4) width, height, width, height in pixels of what normalised boxes refer to: the image, or the
            padded input.
        num_gts: boxes of each image. Python integers, so that reading them never waits for the device.
        img_shapes: (height, width) of the same, on the host.
        img_names: what error messages call each image: its file, where known.
        masks: of all ground truths, where they are learned.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    boxes_xyxy: Tensor
    valid: Tensor
    whwh: Tensor
    num_gts: Tuple[int, ...]
    img_shapes: Tuple[Tuple[int, int], ...]
    img_names: Tuple[str, ...] = ()
    masks: Optional[MaskTargets] = None

    def required_masks(self) -> MaskTargets:
        """The masks.

        Raises:
            ValueError: without masks.
        """
        if self.masks is None:
            raise ValueError('the ground truth has no masks, but the model learns them: load them by with_mask=True')
        return self.masks

    @property
    def is_padded(self) -> bool:
        """Whether any image has fewer boxes than G."""
        return len(set(self.num_gts)) > 1

    def class_agnostic(self) -> 'BatchTargets':
        """These targets with every ground truth as class 0."""
        return self._replace(labels=torch.zeros_like(self.labels))

    def of_image(self, image: int) -> 'BatchTargets':
        """The targets of one image, without padding, as a batch of one."""
        num = self.num_gts[image]
        one = slice(image, image + 1)
        return BatchTargets(
            labels=self.labels[one, :num],
            boxes_cxcywh=self.boxes_cxcywh[one, :num],
            boxes_xyxy=self.boxes_xyxy[one, :num],
            valid=self.valid[one, :num],
            whwh=self.whwh[one],
            num_gts=self.num_gts[one],
            img_shapes=self.img_shapes[one],
            img_names=self.img_names[one],
            masks=self.masks and self.masks.of_image(image),
        )

    @classmethod
    def from_samples(cls, samples: SampleList, normalised_by: str = 'image') -> 'BatchTargets':
        """Pad the ground truth of B data samples; see :meth:`from_instances`."""
        instances = [sample.gt_instances for sample in samples]
        return cls.from_instances(instances, [sample.metainfo for sample in samples], normalised_by)

    @classmethod
    def from_instances(
        cls, gt_instances: Sequence[InstanceData], img_metas: Sequence[dict], normalised_by: str = 'image'
    ) -> 'BatchTargets':
        """Pad the ground truth of B images.

        Args:
            gt_instances: with ``bboxes`` (absolute xyxy) and ``labels``.
            img_metas: with ``img_shape``, and ``batch_input_shape`` where boxes are normalised by the input.
            normalised_by: what width and height of 1 mean: the ``'image'`` (DETR, DINO) or the padded ``'input'``
                (MaskDINO).

        Raises:
            ValueError: for another ``normalised_by``.
        """
        if normalised_by not in NORMALISERS:
            raise ValueError(f'normalised_by={normalised_by!r}: known are {list(NORMALISERS)}')
        boxes = [get_box_tensor(instances.bboxes).float() for instances in gt_instances]
        num_gts = tuple(len(image_boxes) for image_boxes in boxes)
        device = boxes[0].device
        sizes = [meta[NORMALISERS[normalised_by]][:2] for meta in img_metas]
        whwh = torch.tensor([(w, h, w, h) for h, w in sizes], dtype=torch.float32).to(device, non_blocking=True)
        valid = torch.arange(max(num_gts)) < torch.tensor(num_gts)[:, None]
        boxes_xyxy = pad_sequence(boxes, batch_first=True)
        names = (meta.get('img_path') or f'image {index} of the batch' for index, meta in enumerate(img_metas))
        return cls(
            labels=pad_sequence([instances.labels for instances in gt_instances], batch_first=True),
            boxes_cxcywh=bbox_xyxy_to_cxcywh(boxes_xyxy / whwh[:, None]),
            boxes_xyxy=boxes_xyxy,
            valid=valid.to(device, non_blocking=True),
            whwh=whwh,
            num_gts=num_gts,
            img_shapes=tuple(tuple(size) for size in sizes),
            img_names=tuple(names),
        )
