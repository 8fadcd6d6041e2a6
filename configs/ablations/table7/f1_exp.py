# Position-supervised loss with f1 = (e^s-1)/(e-1), convex like the default: row 9 of Table 7.
_base_ = '../table6/psl.py'

model = dict(bbox_head=dict(loss_cls=dict(f1='(e^s-1)/(e-1)')))
