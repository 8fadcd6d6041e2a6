# DAB-DETR, ResNet-50 with dilated last stage (DC5), 12 epochs with a drop of the learning rate after 11.
_base_ = 'dab_detr_r50_50e.py'

model = dict(backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)))

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[11], gamma=0.1)]
