# DAB-DETR, ResNet-50, 50 epochs: the baseline of DN-DETR, trained like it.
# Published: 42.2 AP (its authors), on 8 GPUs with 2 images each.
_base_ = ['mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py', '../_base_/runtime.py']

model = dict(bbox_head=dict(sync_cls_avg_factor=True))  # the class loss is divided by the mean over all GPUs, too
default_hooks = _base_.checks
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False)))
# Learning rate 1e-4, of the backbone 1e-5. fused: the same steps, three times faster.
optim_wrapper = dict(optimizer=dict(fused=True))
