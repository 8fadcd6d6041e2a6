# Swin-T, -S and -B with the ImageNet weights that published detectors start from, and Swin-L of window 7, as H-DETR has
# it; swin_l.py has the one of window 12. A config takes `_base_.swin_t` and so on as its backbone, and
# `_base_.swin_l_norms` as parameters with settings of their own, as names of blocks that are not there do nothing.
_base_ = 'swin_l.py'

swin_storage = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
swin_t = dict(
    type='SwinTransformer',
    pretrain_img_size=224,
    embed_dims=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    drop_path_rate=0.2,
    out_indices=(1, 2, 3),
    with_cp=True,  # activation checkpointing
    convert_weights=True,
    init_cfg=dict(type='Pretrained', checkpoint=swin_storage + 'swin_tiny_patch4_window7_224.pth'),
)
swin_s = dict(
    swin_t,
    depths=[2, 2, 18, 2],
    init_cfg=dict(type='Pretrained', checkpoint=swin_storage + 'swin_small_patch4_window7_224.pth'),
)
swin_b = dict(
    swin_s,
    pretrain_img_size=384,
    embed_dims=128,
    num_heads=[4, 8, 16, 32],
    window_size=12,
    init_cfg=dict(type='Pretrained', checkpoint=swin_storage + 'swin_base_patch4_window12_384_22kto1k.pth'),
)
swin_l_window_7 = dict(
    swin_s,
    embed_dims=192,
    num_heads=[6, 12, 24, 48],
    init_cfg=dict(type='Pretrained', checkpoint=swin_storage + 'swin_large_patch4_window7_224_22k.pth'),
)
