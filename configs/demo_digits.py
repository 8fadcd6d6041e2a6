# A small Stable-DINO that learns handwritten digits from scratch on two CPU cores: `make demo`.
_base_ = 'stable_dino_r50_12e.py'

classes = ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
data_root = 'data/digit_scenes/'

# The model: ResNet-18 of half width, 3 scales, 2 + 3 layers of width 128, 40 queries, 50 denoising queries.
width, num_levels = 128, 3
attention = dict(embed_dims=width)
deformable = dict(embed_dims=width, num_levels=num_levels)
ffn = dict(embed_dims=width, feedforward_channels=2 * width)
model = dict(
    type='StableDINO',  # for baselines made as small as this: mmdet's DINO is fixed at width 256
    num_queries=40,
    num_feature_levels=num_levels,
    backbone=dict(
        depth=18, base_channels=32, frozen_stages=-1, norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=width, num_outs=num_levels),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn)),
    positional_encoding=dict(num_feats=width // 2),
    bbox_head=dict(num_classes=len(classes), embed_dims=width),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=25)),
    test_cfg=dict(max_per_img=30),
)

# The data, at the 160 x 128 pixels of digit scenes. No flips: a digit is not its mirror image.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

# The schedule: nothing is pre-trained, so the backbone learns at full rate.
max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[7], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1), logger=dict(interval=25))
