# MaskDINO, ResNet-50, 50 epochs of COCO panoptic segmentation, which are 368,750 steps of 16 images.
# Published: 53.0 PQ (59.1 things, 43.9 stuff), 48.8 box AP, 44.3 mask AP.
_base_ = 'mask_dino_panoptic_r50_12e.py'

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=368750, by_epoch=False, milestones=[327778, 355092], gamma=0.1)
]
