# Stable matching for MaskDINO: position-supervised loss and position-modulated cost. A config takes both by
# `_base_.stable_mask_dino`, or one by its name. Position is the IoU of boxes; 'mask' and 'mean' are the others.
stable_mask_dino = dict(
    bbox_head=dict(
        target_rescale='one',
        loss_cls=dict(_delete_=True, type='PositionSupervisedLoss', f1='s^2', loss_weight=6.0),
        dn_cls_loss_weight=4.0,
    ),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                dict(type='PositionModulatedFocalCost', f2_power=0.5, weight=4.0, eps=1e-8),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
                dict(type='CrossEntropyLossCost', weight=5.0),
                dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0),
            ]
        )
    ),
)
