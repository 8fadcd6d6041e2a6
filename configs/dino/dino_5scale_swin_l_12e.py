# DINO, 5 scales, Swin-L pre-trained on ImageNet-22K, 12 epochs: as its authors, detrex and mmdet publish it.
_base_ = ['dino_5scale_r50_12e.py', '../_base_/swin_l.py']

model = dict(
    backbone=dict(_delete_=True, **{**_base_.swin_l, 'out_indices': (0, 1, 2, 3)}),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.swin_l_norms))
