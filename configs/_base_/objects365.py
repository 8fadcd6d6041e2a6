# Objects365 v2, laid out as in mmdet; a config takes `_base_.objects365.train` and `.val` as its data sets.
objects365_root = 'data/Objects365/Obj365_v2/'
objects365 = dict(
    train=dict(
        type='Objects365V2Dataset',
        data_root=objects365_root,
        ann_file='annotations/zhiyuan_objv2_train.json',
        data_prefix=dict(img='train/'),
    ),
    val=dict(
        type='Objects365V2Dataset',
        data_root=objects365_root,
        ann_file='annotations/zhiyuan_objv2_val.json',
        data_prefix=dict(img='val/'),
    ),
)
