# COCO panoptic segmentation with large-scale jitter; a config takes `_base_.panoptic_train_dataset` and so on.
panoptic_root = 'data/coco/'
panoptic_size = (1024, 1024)
panoptic_meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
panoptic_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=panoptic_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=panoptic_size, recompute_bbox=True, allow_negative_crop=True),
    dict(type='PackDetInputs'),
]
panoptic_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadPanopticAnnotations'),
    dict(type='PackDetInputs', meta_keys=panoptic_meta_keys),
]
# 255 is no class: neither a thing nor stuff.
panoptic_data_preprocessor = dict(
    pad_seg=True,
    seg_pad_value=255,
    batch_augments=[
        dict(
            type='BatchFixedSizePad',
            size=panoptic_size,
            img_pad_value=0,
            pad_mask=True,
            mask_pad_value=0,
            pad_seg=True,
            seg_pad_value=255,
        )
    ],
)
panoptic_train_dataset = dict(
    type='CocoPanopticDataset',
    data_root=panoptic_root,
    ann_file='annotations/panoptic_train2017.json',
    data_prefix=dict(img='train2017/', seg='annotations/panoptic_train2017/'),
    pipeline=panoptic_train_pipeline,
)
panoptic_val_dataset = dict(
    type='CocoPanopticDataset',
    data_root=panoptic_root,
    ann_file='annotations/panoptic_val2017.json',
    data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'),
    pipeline=panoptic_test_pipeline,
)
panoptic_evaluator = [
    dict(
        type='CocoPanopticMetric',
        ann_file=panoptic_root + 'annotations/panoptic_val2017.json',
        seg_prefix=panoptic_root + 'annotations/panoptic_val2017/',
    ),
    dict(type='CocoMetric', ann_file=panoptic_root + 'annotations/instances_val2017.json', metric=['bbox', 'segm']),
]
