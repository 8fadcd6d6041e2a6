# Stable-DAB-Deformable-DETR, ResNet-50, 12 epochs: stable matching, without fusion; Table 5.
# Published: 45.2 AP (Table 5).
_base_ = ['dab_deformable_detr_r50_12e.py', '../_base_/stable_matching.py']

model = _base_.stable_matching
