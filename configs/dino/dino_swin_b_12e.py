# DINO, 4 scales, Swin-B pre-trained on ImageNet-22K, 12 epochs: for the weights that detrex publishes.
_base_ = ['dino_r50_12e.py', '../_base_/swin.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_b), neck=dict(in_channels=[256, 512, 1024]))
