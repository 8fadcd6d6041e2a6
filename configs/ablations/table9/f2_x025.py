# Stable matching with f2 = x^0.25, modulating the cost less than the default: Table 9.
_base_ = '../table6/psl_pmc.py'

cost = dict(_base_.modulated_cost, f2_power=0.25)
model = dict(train_cfg=dict(assigner=dict(match_costs=[cost, _base_.l1_cost, _base_.giou_cost])))
