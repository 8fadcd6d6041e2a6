# Stable matching with class loss weight 5 instead of 6, on matching queries only: Table 8.
_base_ = '../table6/psl_pmc.py'

model = dict(bbox_head=dict(loss_cls=dict(loss_weight=5.0)))
