"""Ground truth with masks, from the data samples of instance, panoptic and semantic segmentation."""

from typing import Tuple

import torch
from mmdet.models.utils import preprocess_panoptic_gt
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_stable.models.layers import masks_to_xyxy
from mmdet_stable.structures import BatchTargets, MaskTargets


def targets_with_masks(samples: SampleList, num_things: int, num_classes: int) -> BatchTargets:
    """Ground truth of B images, where everything is normalised by the padded input.

    Args:
        samples: with ``gt_instances``, whose ``masks`` have the size of the padded input; where there is stuff, also
            with ``gt_sem_seg``.
        num_things: classes from this number on are stuff. Each kind in an image is one ground truth.
        num_classes: of things and stuff.

    Returns:
        Targets with masks. Boxes are those of the annotations; with stuff, all are the smallest around the masks.

    Raises:
        ValueError: for data without masks, or masks of another size than the input.
    """
    masks, instances = zip(*(_segments(sample, num_things, num_classes) for sample in samples))
    metas = [sample.metainfo for sample in samples]
    for image_masks, meta in zip(masks, metas):
        if tuple(image_masks.shape[1:]) != tuple(meta['batch_input_shape']):
            raise ValueError(
                f'{meta.get("img_path", "an image")}: masks of {tuple(image_masks.shape[1:])} pixels in an input of '
                f'{tuple(meta["batch_input_shape"])}; set data_preprocessor.pad_mask=True, and pad_seg=True for stuff'
            )
    targets = BatchTargets.from_instances(instances, metas, normalised_by='input')
    return targets._replace(masks=MaskTargets.from_masks(masks))


def _segments(sample: DetDataSample, num_things: int, num_classes: int) -> Tuple[Tensor, InstanceData]:
    """(G, H, W) masks, and ``bboxes`` and ``labels``, of one image."""
    instances = sample.gt_instances
    name = sample.metainfo.get('img_path', 'an image')
    if num_things > 0 and 'masks' not in instances:
        raise ValueError(f'{name} comes without masks: set with_mask=True in LoadAnnotations of the training pipeline')
    device = instances.bboxes.device
    if num_things == num_classes:
        masks = instances.masks.to_tensor(torch.bool, device)
        return masks, InstanceData(bboxes=instances.bboxes, labels=instances.labels)
    if 'gt_sem_seg' not in sample:
        raise ValueError(
            f'{name} comes without a map of stuff, of which bbox_head.num_things={num_things} expects '
            f'{num_classes - num_things} classes: set with_seg=True in the loading transform of the training pipeline'
        )
    seg = sample.gt_sem_seg.sem_seg.to(device)
    if num_things == 0:
        labels, masks = instances.labels[:0], BitmapMasks([], *seg.shape[-2:])
    else:
        labels, masks = instances.labels, instances.masks
    labels, masks = preprocess_panoptic_gt(labels, masks, seg, num_things, num_classes - num_things)
    masks = masks.bool()
    seen = masks.flatten(1).any(1)  # things may have been cropped away
    masks, labels = masks[seen], labels[seen]
    return masks, InstanceData(bboxes=masks_to_xyxy(masks.byte(), 'bitmask'), labels=labels.long())
