# Position-supervised loss alone, with DINO's own classification cost: row 2 of Table 6.
_base_ = 'psl_pmc.py'

match_costs = [dict(type='FocalLossCost', weight=2.0), *_base_.model.train_cfg.assigner.match_costs[1:]]
model = dict(train_cfg=dict(assigner=dict(match_costs=match_costs)))
