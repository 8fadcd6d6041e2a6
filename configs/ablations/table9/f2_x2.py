# Stable matching with f2 = x^2, modulating the cost far more than the default: Table 9.
_base_ = '../table6/psl_pmc.py'

cost = dict(_base_.modulated_cost, f2_power=2.0)
model = dict(train_cfg=dict(assigner=dict(match_costs=[cost, _base_.l1_cost, _base_.giou_cost])))
