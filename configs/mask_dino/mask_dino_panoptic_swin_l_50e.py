# MaskDINO, Swin-L pre-trained on ImageNet-22K, 5 scales from res2 on, 50 epochs of COCO panoptic segmentation.
# Published: 58.3 PQ (65.1 things, 48.0 stuff), 56.2 box AP, 50.6 mask AP.
_base_ = ['mask_dino_panoptic_r50_50e.py', '../_base_/swin_l.py']

num_levels = 5
deformable = dict(num_levels=num_levels)
model = dict(
    backbone=dict(_base_.swin_l, _delete_=True, out_indices=(0, 1, 2, 3), drop_path_rate=0.3),
    neck=dict(
        in_channels=[192, 384, 768, 1536],
        num_levels=num_levels,
        num_encoder_inputs=4,
        encoder=dict(layer_cfg=dict(self_attn_cfg=deformable)),
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=deformable)),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.swin_l_norms))
