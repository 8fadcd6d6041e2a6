# Stable-DINO, 4 scales, Swin-L, pre-trained on Objects365 v2: the first half of Table 10.
# The paper gives no schedule; 26 epochs with a drop of the learning rate after 24 are what is known of DINO's.
_base_ = 'stable_dino_swin_l_12e.py'

model = dict(bbox_head=dict(num_classes=365))

data_root = 'data/Objects365/Obj365_v2/'  # laid out as in mmdet
objects365 = dict(type='Objects365V2Dataset', data_root=data_root)
train_dataloader = dict(
    dataset=dict(objects365, ann_file='annotations/zhiyuan_objv2_train.json', data_prefix=dict(img='train/'))
)
val_dataloader = dict(
    dataset=dict(objects365, ann_file='annotations/zhiyuan_objv2_val.json', data_prefix=dict(img='val/'))
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/zhiyuan_objv2_val.json')
test_evaluator = val_evaluator

max_epochs = 26
train_cfg = dict(max_epochs=max_epochs, val_interval=13)  # 80,000 images take long to validate
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[24], gamma=0.1)]
