# Position-supervised loss with f1 = s*p^0.25, which lets the score supervise itself a little: row 6 of Table 7.
_base_ = '../table6/psl.py'

model = dict(bbox_head=dict(loss_cls=dict(f1='s*p^0.25')))
