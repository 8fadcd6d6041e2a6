# Position-supervised loss alone in MaskDINO: row 2 of our ladder to Stable-MaskDINO.
_base_ = ['../../mask_dino/mask_dino_r50_12e.py', '../../_base_/stable_mask_dino.py']

model = dict(bbox_head=_base_.stable_mask_dino.bbox_head)
