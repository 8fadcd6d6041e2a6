# Position-supervised loss with f1 = sin(pi*s/2), concave, too generous to poor boxes: row 10 of Table 7.
_base_ = '../table6/psl.py'

model = dict(bbox_head=dict(loss_cls=dict(f1='sin(pi*s/2)')))
