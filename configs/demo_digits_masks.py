# A small Stable-MaskDINO that learns boxes and masks of handwritten digits from scratch on two CPU cores: `make
# demo-masks`.
_base_ = ['mask_dino/stable_mask_dino_r50_12e.py', '_base_/digit_scenes.py']

width, num_levels = 128, 3
attention = dict(embed_dims=width)
deformable = dict(embed_dims=width, num_levels=num_levels)
ffn = dict(embed_dims=width, feedforward_channels=2 * width)
model = dict(
    num_queries=40,
    dn_cfg=dict(num_queries=25),
    # Scenes of one size, which needs no fixed padding.
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(depth=18, base_channels=32, norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None),
    neck=dict(
        in_channels=[32, 64, 128, 256],
        feat_channels=width,
        out_channels=width,
        num_levels=num_levels,
        encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    ),
    decoder=dict(num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn)),
    bbox_head=dict(
        num_classes=10,
        embed_dims=width,
        mask_dims=width,
        cls_prior=0.01,
        points=dict(num_points=512),
    ),
    test_cfg=dict(max_per_img=30),
)

load_masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
train_pipeline = [_base_.digit_train_pipeline[0], load_masks, *_base_.digit_train_pipeline[2:]]
test_pipeline = [*_base_.digit_test_pipeline[:2], load_masks, _base_.digit_test_pipeline[3]]
scenes = _base_.digit_scenes
train_dataloader = dict(scenes.train_dataloader, dataset=dict(scenes.train_dataloader.dataset, pipeline=train_pipeline))
val_dataloader = dict(scenes.val_dataloader, dataset=dict(scenes.val_dataloader.dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = scenes.val_evaluator
test_evaluator = val_evaluator
optim_wrapper = dict(scenes.optim_wrapper, clip_grad=dict(max_norm=0.1, norm_type=2))
train_cfg = scenes.train_cfg
param_scheduler = scenes.param_scheduler
default_hooks = scenes.default_hooks
