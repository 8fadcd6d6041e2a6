# Stable-MaskDINO with the class-wise NMS on boxes at test time that Stable-DINO has.
_base_ = '../../mask_dino/stable_mask_dino_r50_12e.py'

model = dict(test_cfg=dict(nms=dict(type='nms', iou_threshold=0.8)))
