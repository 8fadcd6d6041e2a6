"""The values that travel between detector, assigner and loss.

Sizes used in every shape of this package: S branches (decoder layers, encoder), B images, Q queries, C classes,
G the largest number of ground truths of an image of the batch, P positives of a branch.
"""

from typing import List, NamedTuple, Sequence, Tuple

import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Branches(NamedTuple):
    """Predictions of S branches over the same queries.

    Attributes:
        logits: (S, B, Q, C) raw class scores.
        boxes_cxcywh: (S, B, Q, 4), normalised by the image to [0, 1].
        prefixes: S prefixes of the loss keys, e.g. ``'d0.'``, ``''``, ``'enc_'``, ``'d0.dn_'``.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    prefixes: Tuple[str, ...]

    def float(self) -> 'Branches':
        """The same in float32."""
        return self._replace(logits=self.logits.float(), boxes_cxcywh=self.boxes_cxcywh.float())

    def detach(self) -> 'Branches':
        """The same without gradient."""
        return self._replace(logits=self.logits.detach(), boxes_cxcywh=self.boxes_cxcywh.detach())


class BatchTargets(NamedTuple):
    """Ground truth of a batch, padded to the image with most boxes.

    Attributes:
        labels: (B, G) int64; 0 in padding.
        boxes_cxcywh: (B, G, 4) normalised; 0 in padding.
        boxes_xyxy: (B, G, 4) in pixels of the network's input; 0 in padding.
        valid: (B, G) bool; True for ground truth, False for padding.
        whwh: (B, 4) width, height, width, height of each image in pixels, without the batch's padding.
        num_gts: boxes of each image. Python integers, so that reading them never waits for the device.
        img_shapes: (height, width) of each image, the same as ``whwh`` but on the host.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    boxes_xyxy: Tensor
    valid: Tensor
    whwh: Tensor
    num_gts: Tuple[int, ...]
    img_shapes: Tuple[Tuple[int, int], ...]

    @property
    def is_padded(self) -> bool:
        """Whether any image has fewer boxes than G."""
        return len(set(self.num_gts)) > 1

    @classmethod
    def from_instances(cls, gt_instances: Sequence[InstanceData], img_metas: Sequence[dict]) -> 'BatchTargets':
        """Pad the ``bboxes`` (absolute xyxy) and ``labels`` of B images; sizes come from ``img_meta['img_shape']``."""
        boxes = [get_box_tensor(instances.bboxes).float() for instances in gt_instances]
        num_gts = tuple(len(image_boxes) for image_boxes in boxes)
        img_shapes = tuple(tuple(meta['img_shape'][:2]) for meta in img_metas)
        device = boxes[0].device
        whwh = torch.tensor([(w, h, w, h) for h, w in img_shapes], dtype=torch.float32).to(device, non_blocking=True)
        valid = torch.arange(max(num_gts)) < torch.tensor(num_gts)[:, None]
        boxes_xyxy = pad_sequence(boxes, batch_first=True)
        return cls(
            labels=pad_sequence([instances.labels for instances in gt_instances], batch_first=True),
            boxes_cxcywh=bbox_xyxy_to_cxcywh(boxes_xyxy / whwh[:, None]),
            boxes_xyxy=boxes_xyxy,
            valid=valid.to(device, non_blocking=True),
            whwh=whwh,
            num_gts=num_gts,
            img_shapes=img_shapes,
        )


class Matches(NamedTuple):
    """Which query answers for which ground truth: M = S * P pairs, branch by branch.

    Every branch has the same number of pairs, so a per-pair value reshapes to (S, P).

    Attributes:
        branch_inds, image_inds, query_inds, gt_inds: (M,) int64 on the predictions' device.
        num_branches: S.
    """

    branch_inds: Tensor
    image_inds: Tensor
    query_inds: Tensor
    gt_inds: Tensor
    num_branches: int

    @property
    def query(self) -> Tuple[Tensor, Tensor, Tensor]:
        """Index of the matched queries in a tensor of (S, B, Q, ...)."""
        return self.branch_inds, self.image_inds, self.query_inds

    @property
    def ground_truth(self) -> Tuple[Tensor, Tensor]:
        """Index of the matched ground truths in a tensor of (B, G, ...)."""
        return self.image_inds, self.gt_inds

    @property
    def num_per_branch(self) -> int:
        """P, the positives of one branch over the whole batch."""
        return len(self.query_inds) // self.num_branches


class DenoisingLayout(NamedTuple):
    """Where the denoising queries lie: ``num_groups`` equal groups in front of the matching queries.

    In a contrastive group of 2 * G slots, slot j < G is the positive query of ground truth j and slot G + j its
    negative; the slots of an image with fewer ground truths are padding and count as background, like negatives.
    """

    num_queries: int
    num_groups: int

    def matches(self, num_gts: Sequence[int], num_branches: int, device: torch.device) -> Matches:
        """The pairs known by construction: positive slot j of each group answers for ground truth j."""
        group_size = self.num_queries // self.num_groups
        pairs: List[Tuple[int, int, int]] = [
            (image, group * group_size + gt, gt)
            for image, num in enumerate(num_gts)
            for group in range(self.num_groups)
            for gt in range(num)
        ]
        image, query, gt = (
            torch.tensor(pairs, dtype=torch.long).reshape(-1, 3).to(device, non_blocking=True).repeat(num_branches, 1).T
        )
        branch = torch.arange(num_branches, device=device).repeat_interleave(len(pairs))
        return Matches(branch, image, query, gt, num_branches)
