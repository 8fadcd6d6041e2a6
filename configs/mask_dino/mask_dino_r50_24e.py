# MaskDINO, ResNet-50, 24 epochs of COCO instances with a drop of the learning rate after 20.
# Published: 44.2 mask AP, 48.4 box AP.
_base_ = 'mask_dino_r50_12e.py'

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[20], gamma=0.1)]
