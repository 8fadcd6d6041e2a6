# DINO, 4 scales, Swin-L, 36 epochs with mmdet's drops of the learning rate after 27 and 33: Table 3's longer baseline.
# Published: 58.0 AP (its authors).
_base_ = 'dino_swin_l_12e.py'

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[27, 33], gamma=0.1)]
