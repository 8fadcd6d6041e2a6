# Stable matching with weight 4 of the classification cost instead of 2: Table 9.
_base_ = '../table6/psl_pmc.py'

match_costs = [
    dict(type='PositionModulatedFocalCost', f2_power=0.5, weight=4.0),
    *_base_.model.train_cfg.assigner.match_costs[1:],
]
model = dict(train_cfg=dict(assigner=dict(match_costs=match_costs)))
