# Position-modulated cost alone, with DINO's own classification loss: not in the paper, completes Table 6.
_base_ = 'dino_nms.py'

match_costs = [
    dict(type='PositionModulatedFocalCost', f2_power=0.5, weight=2.0),
    *_base_.model.train_cfg.assigner.match_costs[1:],
]
model = dict(train_cfg=dict(assigner=dict(match_costs=match_costs)))
