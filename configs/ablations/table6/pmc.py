# Position-modulated cost alone, with DINO's own classification loss: not in the paper, completes Table 6.
_base_ = ['dino_nms.py', '../../_base_/stable_matching.py']

model = dict(train_cfg=_base_.stable_matching.train_cfg)
