# H-Deformable-DETR, ResNet-50, 12 epochs: 1500 further queries learn from 6 copies of each object; baseline of Table 5.
# Without dropout and with feed-forward layers of 2048, as its authors train it.
_base_ = 'deformable_detr_r50_12e.py'

attention = dict(dropout=0.0)
layers = dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(feedforward_channels=2048, ffn_drop=0.0)))
model = dict(
    type='HDeformableDETR',
    one_to_many=dict(num_queries=1500, num_copies=6, loss_weight=1.0),
    encoder=layers,
    decoder=dict(layer_cfg=dict(layers['layer_cfg'], cross_attn_cfg=attention)),
    bbox_head=dict(type='StableDeformableDETRHead'),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)
