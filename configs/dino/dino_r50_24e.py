# DINO, 4 scales, ResNet-50, 24 epochs with a drop of the learning rate after 20: Table 2, the longer schedule.
# Published: 50.4 AP (its authors).
_base_ = 'dino_r50_12e.py'

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[20], gamma=0.1)]
