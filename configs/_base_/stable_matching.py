# Stable matching as in stable_dino_r50_12e.py, for other detectors; a config takes its three parts into its model.
stable_matching = dict(
    bbox_head=dict(
        target_rescale='one',
        loss_cls=dict(_delete_=True, type='PositionSupervisedLoss', f1='s^2', loss_weight=6.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='StableHungarianAssigner',
            match_costs=[
                dict(type='PositionModulatedFocalCost', f2_power=0.5, weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),  # mmdet's name for cxcywh
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(nms=dict(type='nms', iou_threshold=0.8)),
)
