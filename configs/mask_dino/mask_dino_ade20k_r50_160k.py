# MaskDINO, ResNet-50, 160,000 steps of ADE20K semantic segmentation: 150 classes, 100 learned queries, 3 scales.
# Published: 48.7 mIoU (mean of three trainings: 47.7), without AMP.
_base_ = ['mask_dino_r50_12e.py', '../_base_/semantic_data.py']

num_classes, num_levels = 150, 3
deformable = dict(num_levels=num_levels)
model = dict(
    num_queries=100,
    as_two_stage=False,
    initialize_box_type='no',
    data_preprocessor=_base_.ade20k_data_preprocessor,
    neck=dict(
        num_levels=num_levels,
        level_order='high2low',
        encoder=dict(layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=dict(feedforward_channels=1024))),
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=deformable)),
    bbox_head=dict(
        num_classes=num_classes,
        num_things=0,
        loss_cls=dict(
            _delete_=True,
            type='CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=4.0,
            class_weight=[1.0] * num_classes + [0.1],
        ),
    ),
    test_cfg=dict(instance_on=False, semantic_on=True),
)
train_dataloader = _base_.ade20k_train_dataloader
val_dataloader = _base_.ade20k_val_dataloader
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='SemSegMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
max_iters = 160000
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=max_iters, by_epoch=False, milestones=[135000, 150000], gamma=0.1)
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
