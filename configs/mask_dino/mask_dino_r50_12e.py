# MaskDINO, 4 scales, ResNet-50, 300 queries, 12 epochs of COCO instances: baseline of Stable-MaskDINO in Table 4.
# Published: 41.4 mask AP, 45.7 box AP, on 16 images per step, with AMP (here: tools/train.py --amp).
_base_ = [
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/lsj.py',
    '../_base_/runtime.py',
]

width, num_levels = 256, 4
attention = dict(embed_dims=width, num_heads=8, dropout=0.0)
deformable = dict(attention, num_levels=num_levels)
ffn = dict(embed_dims=width, feedforward_channels=2048, ffn_drop=0.0)
model = dict(
    type='MaskDINO',
    num_queries=300,
    initialize_box_type='mask2box',
    dn_cfg=dict(num_queries=100, box_noise_scale=0.4, label_flip_prob=0.2),
    data_preprocessor=_base_.lsj_data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(
        type='MaskDINOPixelDecoder',
        in_channels=[256, 512, 1024, 2048],
        feat_channels=width,
        out_channels=256,
        num_levels=num_levels,
        num_encoder_inputs=3,
        level_order='low2high',
        norm_cfg=dict(type='GN', num_groups=32),
        encoder=dict(num_layers=6, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    ),
    decoder=dict(
        num_layers=9,
        return_intermediate=True,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
        post_norm_cfg=None,
    ),
    bbox_head=dict(
        type='MaskDINOHead',
        num_classes=80,
        embed_dims=width,
        mask_dims=256,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=4.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
        loss_mask_weight=5.0,
        loss_dice_weight=5.0,
        points=dict(num_points=12544, oversample_ratio=3.0, importance_sample_ratio=0.75),
    ),
    train_cfg=dict(
        assigner=dict(
            type='StableHungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=4.0, eps=1e-8),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
                dict(type='CrossEntropyLossCost', weight=5.0),
                dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=100),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.lsj_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.lsj_test_pipeline))
test_dataloader = val_dataloader
default_hooks = _base_.checks
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'neck.level_encoding': dict(decay_mult=0.0),
            'label_embedding': dict(decay_mult=0.0),
            'query_feat': dict(decay_mult=0.0),
            'query_embed': dict(decay_mult=0.0),
        },
    ),
)
max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[11], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
