# A small DN-DETR that learns handwritten digits from scratch on two CPU cores; as an overlay it shrinks DAB-DETR, too.
_base_ = ['dn_detr/dn_detr_r50_50e.py', '_base_/digit_scenes.py']

# The model: ResNet-18 of half width up to stride 16, 2 + 3 layers of width 128, 40 queries.
width = 128
attention = dict(embed_dims=width)
ffn = dict(embed_dims=width, feedforward_channels=2 * width)
model = dict(
    num_queries=40,
    backbone=dict(
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[128], out_channels=width),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)),
    positional_encoding=dict(num_feats=width // 2),
    bbox_head=dict(num_classes=len(_base_.digit_classes), embed_dims=width),
    test_cfg=dict(max_per_img=30),
)

train_dataloader = _base_.digit_scenes.train_dataloader
val_dataloader = _base_.digit_scenes.val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.digit_scenes.val_evaluator
test_evaluator = val_evaluator
optim_wrapper = _base_.digit_scenes.optim_wrapper
train_cfg = _base_.digit_scenes.train_cfg
param_scheduler = _base_.digit_scenes.param_scheduler
default_hooks = _base_.digit_scenes.default_hooks
