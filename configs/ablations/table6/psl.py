# Position-supervised loss alone, with DINO's own classification cost: row 2 of Table 6.
_base_ = 'psl_pmc.py'

cost = dict(type='FocalLossCost', weight=2.0)
model = dict(train_cfg=dict(assigner=dict(match_costs=[cost, _base_.l1_cost, _base_.giou_cost])))
