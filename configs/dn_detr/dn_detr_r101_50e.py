# DN-DETR, ResNet-101, 50 epochs: the deeper backbone.
# Published: 45.2 AP (paper).
_base_ = 'dn_detr_r50_50e.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
