"""NMS of the instances of one image, for all heads."""

from mmcv.ops import batched_nms
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData


def nms_results(instances: InstanceData, nms_cfg: ConfigType) -> InstanceData:
    """The instances that class-wise NMS leaves, by descending score.

    Args:
        instances: of one image, with ``bboxes`` (N, 4) xyxy, ``scores`` (N,) and ``labels`` (N,), in float32, and any
            other fields. N may be 0, which mmcv does not take.
        nms_cfg: of mmcv's ``batched_nms``, e.g. ``dict(type='nms', iou_threshold=0.8)``.

    Returns:
        The same fields; ``scores`` are those that soft-NMS has lowered.
    """
    if len(instances.scores) == 0:
        return instances
    detections, keep = batched_nms(instances.bboxes, instances.scores, instances.labels, nms_cfg)
    kept = instances[keep]
    kept.scores = detections[:, 4]
    return kept
