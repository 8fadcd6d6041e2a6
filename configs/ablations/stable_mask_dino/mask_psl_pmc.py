# Position-supervised loss and position-modulated cost in MaskDINO: row 3 of our ladder to Stable-MaskDINO.
_base_ = ['../../mask_dino/mask_dino_r50_12e.py', '../../_base_/stable_mask_dino.py']

model = _base_.stable_mask_dino
