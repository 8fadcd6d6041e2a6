# DAB-Deformable-DETR, ResNet-50, 12 epochs: queries are boxes, refined by every layer; baseline of Table 5.
# Published: 44.2 AP (Table 5). Without dropout, on 8 GPUs with 2 images each, as its authors train it for 50 epochs.
_base_ = 'deformable_detr_r50_12e.py'

attention = dict(dropout=0.0)
layers = dict(self_attn_cfg=attention, ffn_cfg=dict(ffn_drop=0.0))
model = dict(
    type='DABDeformableDETR',
    as_two_stage=False,
    encoder=dict(layer_cfg=layers),
    decoder=dict(layer_cfg=dict(layers, cross_attn_cfg=attention)),
    bbox_head=dict(type='StableDeformableDETRHead', loss_cls=dict(loss_weight=1.0)),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)

# Learning rate 1e-4, of the backbone 1e-5; that of sampling offsets is not lowered here.
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
