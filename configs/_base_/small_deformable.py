# A small detector with deformable attention, for digit scenes: ResNet-18 of half width, 3 scales, 2 + 3 layers of width
# 128, 40 queries. A config takes `_base_.small_deformable` into its model.
width, num_levels = 128, 3
attention = dict(embed_dims=width)
deformable = dict(embed_dims=width, num_levels=num_levels)
ffn = dict(embed_dims=width, feedforward_channels=2 * width)
small_deformable = dict(
    num_queries=40,
    num_feature_levels=num_levels,
    backbone=dict(
        depth=18, base_channels=32, frozen_stages=-1, norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=width, num_outs=num_levels),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn)),
    positional_encoding=dict(num_feats=width // 2),
    bbox_head=dict(num_classes=10, embed_dims=width),
    test_cfg=dict(max_per_img=30),
)
