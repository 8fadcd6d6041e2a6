# MaskDINO, ResNet-50, 50 epochs of COCO instances, which are 368,750 steps of 16 images.
# Published: 46.3 mask AP, 51.7 box AP with boxes from masks, as here; 46.0 and 50.5 without.
_base_ = 'mask_dino_r50_12e.py'

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=368750, by_epoch=False, milestones=[327778, 355092], gamma=0.1)
]
