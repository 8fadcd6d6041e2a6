# Position-supervised loss with f1 = s*p, which lets the score supervise itself and must fail: row 7 of Table 7.
_base_ = '../table6/psl.py'

model = dict(bbox_head=dict(loss_cls=dict(f1='s*p')))
