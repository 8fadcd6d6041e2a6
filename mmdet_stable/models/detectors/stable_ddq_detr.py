"""DDQ-DETR with memory fusion."""

from mmdet.models.detectors import DDQDETR
from mmdet.registry import MODELS
from mmdet.utils import ConfigType

from mmdet_stable.models.dense_heads import SetLossHead
from mmdet_stable.models.losses import PositionSupervisedLoss

from .memory_fusion import MemoryFusionDetector


@MODELS.register_module()
class StableDDQDETR(MemoryFusionDetector, DDQDETR):
    """mmdet's ``DDQDETR``, whose encoder may carry a memory fusion; see :class:`MemoryFusionDetector`.

    Its head stays mmdet's, as it knows the auxiliary dense queries; it takes our cost and assigner.

    Raises:
        ValueError: for a head, loss or denoising generator of this package.
    """

    fills_up_queries = False  # DDQ-DETR does itself, and looks for the tokens in the memory

    def __init__(self, *args, dn_cfg: ConfigType, **kwargs) -> None:
        if 'type' in dn_cfg:
            raise ValueError(
                f"dn_cfg.type={dn_cfg['type']!r}: DDQ-DETR denoises by mmdet's own generator, whose layout its head "
                'knows; leave dn_cfg as in mmdet'
            )
        super().__init__(*args, dn_cfg=dn_cfg, **kwargs)
        if isinstance(self.bbox_head, SetLossHead):
            raise ValueError(
                f'bbox_head.type={type(self.bbox_head).__name__!r}: DDQ-DETR needs its own DDQDETRHead for its dense '
                'queries; give that PositionModulatedFocalCost and StableHungarianAssigner instead'
            )
        if isinstance(self.bbox_head.loss_cls, PositionSupervisedLoss):
            raise ValueError(
                "bbox_head.loss_cls.type='PositionSupervisedLoss': DDQDETRHead does not hand the IoU of matched boxes "
                'to its loss; keep its FocalLoss, and take PositionModulatedFocalCost for the matching'
            )
