# Stable-Deformable-DETR, ResNet-50, 12 epochs: stable matching, without fusion; Table 5.
# Published: 45.1 AP (Table 5).
_base_ = ['deformable_detr_r50_12e.py', '../_base_/stable_matching.py']

model = dict(
    bbox_head=dict(_base_.stable_matching.bbox_head, type='StableDeformableDETRHead'),
    train_cfg=_base_.stable_matching.train_cfg,
    test_cfg=_base_.stable_matching.test_cfg,
)
