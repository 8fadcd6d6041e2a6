# Stable matching with f2 = x, modulating the cost more than the default: Table 9.
_base_ = '../table6/psl_pmc.py'

cost = dict(_base_.modulated_cost, f2_power=1.0)
model = dict(train_cfg=dict(assigner=dict(match_costs=[cost, _base_.l1_cost, _base_.giou_cost])))
