# Deformable-DETR, two-stage with box refinement, ResNet-50, 12 epochs: baseline of Table 5.
_base_ = ['mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py', '../_base_/runtime.py']

model = dict(type='StableDeformableDETR')  # computes what mmdet's does, and has options that mmdet's has not
default_hooks = _base_.checks

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=1e-4, fused=True))  # fused: the same steps, three times faster
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[11], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=16)
