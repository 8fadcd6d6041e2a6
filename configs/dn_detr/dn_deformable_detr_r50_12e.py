# DN-Deformable-DETR++, ResNet-50, 12 epochs: denoising on a two-stage DAB-Deformable-DETR that refines its boxes.
# The paper does not list what "++" comprises; here: two stages, no dropout, feed-forward layers of 2048 as in DINO.
_base_ = ['mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py', '../_base_/runtime.py']

attention = dict(dropout=0.0)
layers = dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(feedforward_channels=2048, ffn_drop=0.0)))
model = dict(
    type='DNDeformableDETR',
    encoder=layers,
    decoder=dict(layer_cfg=dict(layers['layer_cfg'], cross_attn_cfg=attention)),
    dn_cfg=dict(num_groups=5, box_noise_scale=0.4, label_flip_prob=0.2),
    bbox_head=dict(type='StableDeformableDETRHead', loss_cls=dict(loss_weight=1.0)),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)
default_hooks = _base_.checks

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[11], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=16)
