# Large-scale jitter at 1024 x 1024, as MaskDINO trains instances on COCO; a config takes `_base_.lsj_train_pipeline`
# and so on. As in the released code but for two things that mmdet's transforms do their own way: crops are drawn for x
# and y apart, and padding is 0 after normalisation, not grey. Masks are polygons until all transforms are done.
lsj_size = (1024, 1024)
lsj_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=lsj_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=lsj_size, recompute_bbox=True, allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type='PackDetInputs'),
]
lsj_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# Every batch of training has the size of the jitter, so that boxes and masks are normalised by one frame.
lsj_data_preprocessor = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_mask=True,
    mask_pad_value=0,
    pad_size_divisor=32,
    batch_augments=[
        dict(type='BatchFixedSizePad', size=lsj_size, img_pad_value=0, pad_mask=True, mask_pad_value=0, pad_seg=False)
    ],
)
