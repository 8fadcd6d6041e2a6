# DAB-DETR, ResNet-50 with dilated last stage (DC5), 12 epochs with a drop of the learning rate after 11.
# Published: 38.0 AP (DN-DETR's paper); the released code, on 16 GPUs, adds 3 pattern embeddings, which are not here.
_base_ = 'dab_detr_r50_50e.py'

# DilatedResNet dilates as torchvision's ResNet, with which all DC5 results are published.
model = dict(backbone=dict(type='DilatedResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)))

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[11], gamma=0.1)]
