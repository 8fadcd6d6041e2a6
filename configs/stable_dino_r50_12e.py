# Stable-DINO, 4 scales, ResNet-50, 12 epochs: Table 2 and row 6 of Table 6 (published AP 50.4; not trained by us).
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '_base_/runtime.py']

model = dict(
    type='StableDINO',
    encoder=dict(fusion=dict(type='DenseMemoryFusion')),
    # As in the released config; to fine-tune mmdet's DINO checkpoint, keep its own: offset=0.0, temperature=20.
    positional_encoding=dict(offset=-0.5, temperature=10000),
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

# Checks before the first step. Not in custom_hooks, a list that a child config would replace.
default_hooks = dict(
    dataset_check=dict(type='DatasetCheckHook'),
    fine_tune_classes=dict(type='FineTuneClassesHook'),
)
