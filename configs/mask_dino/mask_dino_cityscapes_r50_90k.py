# MaskDINO, ResNet-50, 90,000 steps of Cityscapes semantic segmentation: 19 classes, 100 learned queries, 3 scales.
# Published: 80.0 mIoU (mean of three trainings: 79.8).
_base_ = 'mask_dino_ade20k_r50_160k.py'

num_classes = 19
model = dict(
    data_preprocessor=_base_.cityscapes_data_preprocessor,
    # The backbone's norms learn, over all GPUs.
    backbone=dict(norm_cfg=dict(type='SyncBN', requires_grad=True), norm_eval=False),
    bbox_head=dict(num_classes=num_classes, loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])),
)
train_dataloader = _base_.cityscapes_train_dataloader
val_dataloader = _base_.cityscapes_val_dataloader
test_dataloader = val_dataloader
max_iters = 90000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=max_iters, by_epoch=False, milestones=[80000, 87000], gamma=0.1)
]
# `norm_decay_mult` stops where a custom key matches, and `backbone` does everywhere here; the longest key counts.
norm = dict(lr_mult=0.1, decay_mult=0.0)
blocks = [(stage + 1, block) for stage, depth in enumerate([3, 4, 6, 3]) for block in range(depth)]
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone.bn': norm,
            **{f'backbone.layer{stage}.{block}.bn': norm for stage, block in blocks},
            **{f'backbone.layer{stage}.0.downsample.1': norm for stage in range(1, 5)},
        }
    )
)
