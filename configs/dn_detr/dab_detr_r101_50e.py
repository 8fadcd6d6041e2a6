# DAB-DETR, ResNet-101, 50 epochs: the deeper backbone.
# Published: 43.5 AP (DN-DETR's paper).
_base_ = 'dab_detr_r50_50e.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
