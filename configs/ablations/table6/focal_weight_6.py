# DINO with NMS and PSL's class loss weight, but not its loss: not in the paper, tells the two apart.
_base_ = 'dino_nms.py'

model = dict(bbox_head=dict(dn_cls_loss_weight=1.0, loss_cls=dict(loss_weight=6.0)))
