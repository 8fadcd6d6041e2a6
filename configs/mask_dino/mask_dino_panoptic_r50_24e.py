# MaskDINO, ResNet-50, 24 epochs of COCO panoptic segmentation with a drop of the learning rate after 20.
# Published: 51.5 PQ (57.3 things, 42.6 stuff), 46.4 box AP, 42.8 mask AP.
_base_ = 'mask_dino_panoptic_r50_12e.py'

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[20], gamma=0.1)]
