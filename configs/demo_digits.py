# A small Stable-DINO that learns handwritten digits from scratch on two CPU cores: `make demo`.
_base_ = ['stable_dino_r50_12e.py', '_base_/digit_scenes.py']

# The model: ResNet-18 of half width, 3 scales, 2 + 3 layers of width 128, 40 queries, 50 denoising queries.
width, num_levels = 128, 3
attention = dict(embed_dims=width)
deformable = dict(embed_dims=width, num_levels=num_levels)
ffn = dict(embed_dims=width, feedforward_channels=2 * width)
model = dict(
    type='StableDINO',  # this, the head and the assigner for baselines, too: mmdet's DINO is fixed at width 256
    num_queries=40,
    num_feature_levels=num_levels,
    backbone=dict(
        depth=18, base_channels=32, frozen_stages=-1, norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=width, num_outs=num_levels),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn)),
    positional_encoding=dict(num_feats=width // 2),
    bbox_head=dict(type='StableDINOHead', num_classes=len(_base_.digit_classes), embed_dims=width),
    dn_cfg=dict(
        _delete_=True,
        type='DNQueryGenerator',
        num_queries=25,
        box_noise='corners',
        box_noise_scale=1.0,
        label_flip_prob=0.25,
        negatives='near',
    ),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
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
