# DN-Deformable-DETR, ResNet-50, 50 epochs with a drop of the learning rate after 40, as its authors publish it.
_base_ = 'dn_deformable_detr_r50_12e.py'

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[40], gamma=0.1)]
