# DINO with NMS at test time, the rest as in row 0: row 1 of Table 6, the baseline of the ablations.
_base_ = 'psl.py'

loss_cls = dict(_delete_=True, type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
model = dict(bbox_head=dict(target_rescale=None, dn_cls_loss_weight=None, loss_cls=loss_cls))
