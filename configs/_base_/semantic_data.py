# ADE20K and Cityscapes for semantic segmentation; a config takes `_base_.ade20k_train_dataloader` and so on.
# As in the released code. Maps of Cityscapes are those that its own scripts make: `gtFine_labelTrainIds.png`.
semantic_meta_keys = ('img_path', 'ori_shape', 'img_shape', 'scale_factor')
ade20k_size, cityscapes_size = (512, 512), (512, 1024)  # height, width
ade20k_seg = dict(type='LoadAnnotations', with_bbox=False, with_mask=False, with_seg=True, reduce_zero_label=True)
cityscapes_seg = dict(type='LoadAnnotations', with_bbox=False, with_mask=False, with_seg=True)
semantic_jitter = dict(
    type='PhotoMetricDistortion',
    brightness_delta=32,
    contrast_range=(0.5, 1.5),
    saturation_range=(0.5, 1.5),
    hue_delta=18,
)


# The shorter side of an image is 0.5 to 2 times the crop's width.
def semantic_train_pipeline(annotations, crop_size):
    height, width = crop_size
    shorter_sides = [int(0.1 * ratio * width) for ratio in range(5, 21)]
    return [
        dict(type='LoadImageFromFile'),
        annotations,
        dict(
            type='RandomChoiceResize',
            scales=shorter_sides,
            resize_type='ResizeShortestEdge',
            max_size=4 * width,
        ),
        dict(type='SemanticRandomCrop', crop_size=(width, height)),
        semantic_jitter,
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs', meta_keys=semantic_meta_keys),
    ]


def semantic_test_pipeline(annotations, crop_size):
    return [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(2048, crop_size[1]), keep_ratio=True),
        annotations,
        dict(type='PackDetInputs', meta_keys=semantic_meta_keys),
    ]


# 255 is no class.
def semantic_preprocessor(size):
    pad = dict(type='BatchFixedSizePad', size=size, img_pad_value=0, pad_mask=False, pad_seg=True, seg_pad_value=255)
    return dict(pad_mask=False, pad_seg=True, seg_pad_value=255, batch_augments=[pad])


ade20k_data_preprocessor = semantic_preprocessor(ade20k_size)
cityscapes_data_preprocessor = semantic_preprocessor(cityscapes_size)
ade20k_root = 'data/ADEChallengeData2016/'
ade20k_train = dict(
    type='ADE20KSegDataset',
    data_root=ade20k_root,
    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    pipeline=semantic_train_pipeline(ade20k_seg, ade20k_size),
    _delete_=True,
)
ade20k_val = dict(
    type='ADE20KSegDataset',
    data_root=ade20k_root,
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    pipeline=semantic_test_pipeline(ade20k_seg, ade20k_size),
    _delete_=True,
)
cityscapes_names = (
    'road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car truck '
    'bus train motorcycle bicycle'
)
cityscapes = dict(
    type='BaseSegDataset',
    data_root='data/cityscapes/',
    metainfo=dict(classes=tuple(cityscapes_names.split())),
    img_suffix='_leftImg8bit.png',
    seg_map_suffix='_gtFine_labelTrainIds.png',
    _delete_=True,
)
cityscapes_train = dict(
    cityscapes,
    data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
    pipeline=semantic_train_pipeline(cityscapes_seg, cityscapes_size),
)
cityscapes_val = dict(
    cityscapes,
    data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    pipeline=semantic_test_pipeline(cityscapes_seg, cityscapes_size),
)
endless = dict(type='InfiniteSampler', shuffle=True)
ade20k_train_dataloader = dict(sampler=endless, batch_sampler=None, dataset=ade20k_train)
ade20k_val_dataloader = dict(dataset=ade20k_val)
cityscapes_train_dataloader = dict(sampler=endless, batch_sampler=None, dataset=cityscapes_train)
cityscapes_val_dataloader = dict(dataset=cityscapes_val)
