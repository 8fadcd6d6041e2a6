# Deformable-DETR, one stage, no refinement, features of stride 32 alone, ResNet-50, 50 epochs: its "single scale".
# Published: 39.4 AP (its authors), on 32 images per step.
_base_ = 'deformable_detr_r50_12e.py'

num_levels = 1
ffn = dict(feedforward_channels=1024)
model = dict(
    num_feature_levels=num_levels,
    as_two_stage=False,
    with_box_refine=False,
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=[2048], num_outs=num_levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_levels), ffn_cfg=ffn)),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels), ffn_cfg=ffn)),
)
max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[40], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=32)
