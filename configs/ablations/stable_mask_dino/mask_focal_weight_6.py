# Class weight 6 alone in MaskDINO, without stable matching: a control, as the whole method has this weight, too.
_base_ = '../../mask_dino/mask_dino_r50_12e.py'

model = dict(bbox_head=dict(loss_cls=dict(loss_weight=6.0), dn_cls_loss_weight=4.0))
