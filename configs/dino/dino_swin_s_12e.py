# DINO, 4 scales, Swin-S pre-trained on ImageNet, 12 epochs: as detrex publishes it.
_base_ = ['dino_r50_12e.py', '../_base_/swin.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_s), neck=dict(in_channels=[192, 384, 768]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.swin_l_norms))
