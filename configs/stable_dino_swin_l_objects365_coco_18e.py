# Stable-DINO, 4 scales, Swin-L, pre-trained on Objects365 and fine-tuned on COCO at 1.5 times the image size: Table 10.
# Published: 63.7 AP on val2017, 63.8 on test-dev (paper), which gives no schedule; 18 epochs and larger images are
# what is known of DINO's.
_base_ = 'stable_dino_swin_l_12e.py'

# Class weights start afresh, as FineTuneClassesHook logs.
load_from = 'work_dirs/stable_dino_swin_l_objects365_26e/epoch_26.pth'

resize = dict(
    type='RandomChoiceResize', scales=[(short_side, 2000) for short_side in range(720, 1201, 48)], keep_ratio=True
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [resize],
            [
                dict(type='RandomChoiceResize', scales=[(600, 6300), (750, 6300), (900, 6300)], keep_ratio=True),
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(576, 900), allow_negative_crop=True),
                resize,
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2000, 1200), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_epochs = 18
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[15], gamma=0.1)]
