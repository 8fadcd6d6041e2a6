# Position-supervised loss with f1 = s^2*p, which lets the score supervise itself and must fail: row 8 of Table 7.
_base_ = '../table6/psl.py'

model = dict(bbox_head=dict(loss_cls=dict(f1='s^2*p')))
