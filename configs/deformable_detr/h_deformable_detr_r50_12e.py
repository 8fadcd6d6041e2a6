# H-Deformable-DETR, ResNet-50, 12 epochs: 1500 further queries learn from 6 copies of each object; baseline of Table 5.
# Published: 48.6 AP (Table 5), 48.7 (its authors), without dropout, on 8 GPUs with 2 images each.
_base_ = 'deformable_detr_r50_12e.py'

attention = dict(dropout=0.0)
layers = dict(self_attn_cfg=attention, ffn_cfg=dict(ffn_drop=0.0))
model = dict(
    type='HDeformableDETR',
    one_to_many=dict(num_queries=1500, num_copies=6, loss_weight=1.0),
    encoder=dict(layer_cfg=layers),
    decoder=dict(layer_cfg=dict(layers, cross_attn_cfg=attention)),
    bbox_head=dict(type='StableDeformableDETRHead'),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)
