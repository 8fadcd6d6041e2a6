# Stable-DINO, 4 scales, Swin-L, 24 epochs with a drop of the learning rate after 20: Table 3, the longer schedule.
# Published: 58.6 AP (paper).
_base_ = 'stable_dino_swin_l_12e.py'

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[20], gamma=0.1)]
