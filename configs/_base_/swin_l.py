# Swin-L with the ImageNet-22K weights that mmdet's DINO uses; a config takes `_base_.swin_l` as its backbone, and
# `_base_.swin_l_norms` as parameters with settings of their own.
depths = [2, 2, 18, 2]
swin_l = dict(
    type='SwinTransformer',
    pretrain_img_size=384,
    embed_dims=192,
    depths=depths,
    num_heads=[6, 12, 24, 48],
    window_size=12,
    drop_path_rate=0.2,
    out_indices=(1, 2, 3),
    with_cp=True,  # activation checkpointing
    convert_weights=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
        'swin_large_patch4_window12_384_22k.pth',
    ),
)
# `norm_decay_mult` stops where a custom key matches, and `backbone` does everywhere here; the longest key counts.
norm = dict(lr_mult=0.1, decay_mult=0.0)
swin_l_norms = {
    'backbone.patch_embed.norm': norm,
    'backbone.norm': norm,
    **{f'backbone.stages.{stage}.downsample.norm': norm for stage in range(3)},
    **{f'backbone.stages.{stage}.blocks.{i}.norm': norm for stage, depth in enumerate(depths) for i in range(depth)},
}
