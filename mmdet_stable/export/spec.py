"""What an exported file says about itself: how pictures are prepared for it, and what its numbers mean."""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmengine.config import Config

from mmdet_stable.models.dense_heads.mask_inference import MaskInference
from mmdet_stable.models.detectors import MaskDINO
from mmdet_stable.runtime.detector import FORMAT
from mmdet_stable.versions import __version__

from .errors import ExportError
from .graph import ExportableDetector
from .nms import check_hard_nms

BACKENDS = ('cv2', 'pillow')  # that resize
HARMLESS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadPanopticAnnotations', 'PackDetInputs')
Size = Tuple[int, int]


class Settings(NamedTuple):
    """How to export.

    Attributes:
        size: (height, width) of all inputs, in which pictures lie in the upper left corner; None for any size.
        padded: see :class:`ExportableDetector`; where the size is given, or batches are padded to a multiple, always.
        sampling: how deformable attention samples; see :mod:`mmdet_stable.export.sampling`.
        fp16: whether convolutions and matrix products compute in half precision.
        nms: IoU threshold of a class-wise NMS in the graph; 0 for none; None for what ``test_cfg.nms`` says.
        opset: version of ONNX's operators, from 18 on, which torch writes.
        int8: a folder of pictures like those to come, by which convolutions and matrix products are quantised; see
            :mod:`mmdet_stable.export.quantising`. None for no quantisation.
    """

    size: Optional[Size] = None
    padded: bool = False
    sampling: str = 'gather'
    fp16: bool = False
    nms: Optional[float] = None
    opset: int = 18
    int8: Optional[Path] = None

    @property
    def precision(self) -> str:
        """``'float32'``, ``'float16'`` or ``'int8'``."""
        if self.int8 is not None:
            return 'int8'
        return 'float16' if self.fp16 else 'float32'


def resize_rule(cfg: Config) -> Dict[str, Any]:
    """``scale`` (width, height), ``keep_ratio`` and ``backend`` of the config's test pipeline.

    Raises:
        ExportError: for a pipeline that does more to a picture than to resize it bilinearly.
    """
    dataset = cfg.test_dataloader.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    rule: Optional[Dict[str, Any]] = None
    for transform in dataset.pipeline:
        name = transform['type'].rpartition('.')[2]
        if name == 'Resize' and rule is None:
            interpolation, backend = transform.get('interpolation', 'bilinear'), transform.get('backend', 'cv2')
            scale = transform.get('scale')
            if interpolation != 'bilinear' or backend not in BACKENDS or not isinstance(scale, (tuple, list)):
                raise ExportError(
                    f'test_dataloader.dataset.pipeline: {dict(transform)}: exported is Resize with scale=(width, '
                    "height), interpolation='bilinear' and backend='cv2' or 'pillow'"
                )
            keep_ratio = bool(transform.get('keep_ratio', False))
            rule = dict(scale=[int(edge) for edge in scale], keep_ratio=keep_ratio, backend=backend)
        elif name == 'LoadImageFromFile' and transform.get('color_type', 'color') != 'color':
            raise ExportError(
                f'test_dataloader.dataset.pipeline: color_type={transform["color_type"]!r}: the runtime reads colours '
                "and turns pictures as EXIF says; exported is color_type='color'"
            )
        elif name not in HARMLESS:
            raise ExportError(
                f'test_dataloader.dataset.pipeline: {name} is not among the transforms that the runtime applies: '
                'one Resize, and loading and packing'
            )
    if rule is None:
        raise ExportError('test_dataloader.dataset.pipeline: has no Resize, so that pictures would have any size')
    return rule


def pad_divisor(detector: Any) -> int:
    """Inputs are padded to multiples of this."""
    return int(detector.data_preprocessor.pad_size_divisor)


def strides_of(detector: Any) -> List[int]:
    """Of the maps that the encoder sees, in pixels of the input."""
    with torch.no_grad():
        features = detector.extract_feat(torch.zeros(1, 3, 256, 256))
    maps = features.maps if isinstance(detector, MaskDINO) else features
    return [256 // level.shape[-2] for level in maps]


def rule_of_masks(inference: MaskInference) -> Dict[str, Any]:
    """How the runtime makes results of masks, as :class:`MaskInference` does.

    Raises:
        ExportError: for anything but hard NMS.
    """
    if inference.nms:
        check_hard_nms(inference.nms, 'test_cfg.nms')
    return dict(
        instances=inference.instance_on,
        panoptic=inference.panoptic_on,
        semantic=inference.semantic_on,
        score_by_mask=not inference.focus_on_box,
        boxes_from_masks=inference.boxes_from_masks,
        nms=inference.nms['iou_threshold'] if inference.nms else None,
        num_things=inference.num_things,
        softmax=inference.softmax,
        object_mask_thr=inference.object_mask_thr,
        iou_thr=inference.iou_thr,
        sharpen=inference.sharpen,
        resize_first=inference.resize_first,
    )


def metadata_of(module: ExportableDetector, cfg: Config, classes: Sequence[str], settings: Settings) -> Dict[str, Any]:
    """What :class:`mmdet_stable.runtime.Detector` reads, as JSON takes it; ``parity`` is added after the check."""
    detector = module.detector
    head = detector.bbox_head
    if len(classes) != head.num_classes:
        raise ExportError(f'{len(classes)} names of classes for bbox_head.num_classes={head.num_classes}')
    fills_up = not hasattr(detector, 'selection')  # DDQ-DETR, which may find fewer tokens than queries
    chooses = getattr(detector, 'as_two_stage', False) and not fills_up
    return dict(
        format=FORMAT,
        version=__version__,
        detector=type(detector).__name__,
        classes=list(classes),
        input=dict(
            layout='NCHW',
            channels='RGB',
            dtype='uint8',
            sizes=module.padded,
            size=None if settings.size is None else list(settings.size),
            pad_divisor=1 if settings.size else pad_divisor(detector),
            strides=strides_of(detector),
            least_tokens=int(detector.num_one_to_one) if chooses else 0,
        ),
        resize=resize_rule(cfg),
        in_the_graph=dict(
            mean=module.mean.flatten().tolist(), std=module.std.flatten().tolist(), bgr=module.flips_channels
        ),
        masks=rule_of_masks(head.inference) if module.has_masks else None,
        precision=settings.precision,
        sampling=settings.sampling,
        parity=None,
    )
