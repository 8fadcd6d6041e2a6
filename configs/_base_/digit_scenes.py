# Digit scenes and a schedule for them; a config takes `_base_.digit_scenes.train_dataloader` and so on.
# At the scenes' own 160 x 128 pixels, without flips: a digit is not its mirror image.
digit_classes = ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
digit_root = 'data/digit_scenes/'
digit_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='PackDetInputs'),
]
digit_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
digit_epochs = 8
digit_scenes = dict(
    train_dataloader=dict(
        batch_size=8,
        num_workers=1,
        dataset=dict(
            data_root=digit_root,
            metainfo=dict(classes=digit_classes),
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
            pipeline=digit_train_pipeline,
        ),
    ),
    val_dataloader=dict(
        batch_size=16,
        num_workers=1,
        dataset=dict(
            data_root=digit_root,
            metainfo=dict(classes=digit_classes),
            ann_file='annotations/instances_val.json',
            data_prefix=dict(img='val/'),
            pipeline=digit_test_pipeline,
        ),
    ),
    val_evaluator=dict(ann_file=digit_root + 'annotations/instances_val.json'),
    # Nothing is pre-trained, so the backbone learns at full rate; norms decay like everything else.
    optim_wrapper=dict(
        optimizer=dict(lr=4e-4),
        paramwise_cfg=dict(norm_decay_mult=None, custom_keys=dict(backbone=dict(lr_mult=1.0))),
    ),
    train_cfg=dict(max_epochs=digit_epochs, val_interval=2),
    param_scheduler=[
        dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
        dict(type='MultiStepLR', begin=0, end=digit_epochs, by_epoch=True, milestones=[7], gamma=0.1),
    ],
    default_hooks=dict(checkpoint=dict(max_keep_ckpts=2), logger=dict(interval=25)),
)
