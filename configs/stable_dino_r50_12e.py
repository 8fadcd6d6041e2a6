# Stable-DINO, 4 scales, ResNet-50, 12 epochs: stable matching and dense fusion; Table 2 and row 6 of Table 6.
_base_ = 'dino/dino_r50_12e.py'

model = dict(
    type='StableDINO',
    encoder=dict(fusion=dict(type='DenseMemoryFusion')),
    dn_cfg=dict(  # the released code's, whose negatives are as near as positives; padding is left out of it here
        _delete_=True,
        type='DNQueryGenerator',
        num_queries=100,
        box_noise='corners',
        box_noise_scale=1.0,
        label_flip_prob=0.25,
        negatives='near',
    ),
    bbox_head=dict(
        type='StableDINOHead',
        target_rescale='one',  # as in the released config; the paper also describes 'max_iou'
        dn_cls_loss_weight=1.0,
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
