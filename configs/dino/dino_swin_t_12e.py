# DINO, 4 scales, Swin-T pre-trained on ImageNet, 12 epochs: for the weights that detrex publishes.
_base_ = ['dino_r50_12e.py', '../_base_/swin.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_t), neck=dict(in_channels=[192, 384, 768]))
