# DINO, 4 scales, Swin-L pre-trained on ImageNet-22K, 12 epochs: the baseline of Table 3.
# Published: 56.8 AP (its authors).
_base_ = ['dino_r50_12e.py', '../_base_/swin_l.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_l), neck=dict(in_channels=[384, 768, 1536]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.swin_l_norms))
