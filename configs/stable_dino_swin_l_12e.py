# Stable-DINO, 4 scales, Swin-L pre-trained on ImageNet-22K, 12 epochs: Table 3, the larger backbone.
# Published: 57.7 AP (paper).
_base_ = ['stable_dino_r50_12e.py', '_base_/swin_l.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_l), neck=dict(in_channels=[384, 768, 1536]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.swin_l_norms))
