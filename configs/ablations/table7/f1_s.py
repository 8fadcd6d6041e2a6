# Position-supervised loss with f1 = s, the plain IoU as target: row 3 of Table 7.
_base_ = '../table6/psl.py'

model = dict(bbox_head=dict(loss_cls=dict(f1='s')))
