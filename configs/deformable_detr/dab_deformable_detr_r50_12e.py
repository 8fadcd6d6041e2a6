# DAB-Deformable-DETR, ResNet-50, 12 epochs: queries are boxes, refined by every layer; baseline of Table 5.
# Without dropout and with feed-forward layers of 2048, as its authors train it.
_base_ = 'deformable_detr_r50_12e.py'

attention = dict(dropout=0.0)
layers = dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(feedforward_channels=2048, ffn_drop=0.0)))
model = dict(
    type='DABDeformableDETR',
    as_two_stage=False,
    encoder=layers,
    decoder=dict(layer_cfg=dict(layers['layer_cfg'], cross_attn_cfg=attention)),
    bbox_head=dict(type='StableDeformableDETRHead', loss_cls=dict(loss_weight=1.0)),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)
