# Stable matching with weight 1 of the classification cost instead of 2: Table 9.
_base_ = '../table6/psl_pmc.py'

cost = dict(_base_.modulated_cost, weight=1.0)
model = dict(train_cfg=dict(assigner=dict(match_costs=[cost, _base_.l1_cost, _base_.giou_cost])))
