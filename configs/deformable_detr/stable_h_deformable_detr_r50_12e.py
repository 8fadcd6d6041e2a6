# Stable-H-Deformable-DETR, ResNet-50, 12 epochs: stable matching in both branches, without fusion; Table 5.
# Published: 49.2 AP (Table 5).
_base_ = ['h_deformable_detr_r50_12e.py', '../_base_/stable_matching.py']

model = _base_.stable_matching
