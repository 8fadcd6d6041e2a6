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
