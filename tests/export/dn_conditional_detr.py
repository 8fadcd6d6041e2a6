# Conditional DETR with denoising queries, as docs/mixing.md shows it.
_base_ = 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
model = dict(
    type='DNConditionalDETR',
    dn_cfg=dict(num_groups=5, box_noise_scale=0.4, label_flip_prob=0.2),
    bbox_head=dict(type='StableConditionalDETRHead'),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)
