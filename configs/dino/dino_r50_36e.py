# DINO, 4 scales, ResNet-50, 36 epochs with a drop of the learning rate after 30: Table 2, the longer schedule.
# Published: 50.9 AP (its authors).
_base_ = 'dino_r50_12e.py'

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[30], gamma=0.1)]
