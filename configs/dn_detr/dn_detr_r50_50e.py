# DN-DETR, ResNet-50, 50 epochs: DAB-DETR that learns from denoising queries, too.
# Published: 44.1 AP (paper), 44.4 (released code), on 8 GPUs with 2 images each.
_base_ = 'dab_detr_r50_50e.py'

model = dict(
    type='DNDETR',
    dn_cfg=dict(num_groups=5, box_noise_scale=0.4, label_flip_prob=0.2),
    bbox_head=dict(type='StableDABDETRHead'),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)
