# Stable matching with f2 = x^2, modulating the cost far more than the default: Table 9.
_base_ = '../table6/psl_pmc.py'

match_costs = [
    dict(type='PositionModulatedFocalCost', f2_power=2.0, weight=2.0),
    *_base_.model.train_cfg.assigner.match_costs[1:],
]
model = dict(train_cfg=dict(assigner=dict(match_costs=match_costs)))
