# H-Deformable-DETR, Swin-T pre-trained on ImageNet, 12 epochs: as its authors publish it.
_base_ = ['h_deformable_detr_r50_12e.py', '../_base_/swin.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_t), neck=dict(in_channels=[192, 384, 768]))
