# Stable-MaskDINO with class weight 4 for all queries, in place of 6 for matching ones.
_base_ = '../../mask_dino/stable_mask_dino_r50_12e.py'

model = dict(bbox_head=dict(loss_cls=dict(loss_weight=4.0)))
