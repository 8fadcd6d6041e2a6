# H-Deformable-DETR, Swin-L of window 7, pre-trained on ImageNet-22K, 12 epochs: as its authors publish it.
_base_ = ['h_deformable_detr_r50_12e.py', '../_base_/swin.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_l_window_7), neck=dict(in_channels=[384, 768, 1536]))
