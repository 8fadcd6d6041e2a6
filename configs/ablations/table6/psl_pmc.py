# Position-supervised loss and position-modulated cost, without memory fusion: row 3 of Table 6.
_base_ = '../../stable_dino_r50_12e.py'

model = dict(encoder=dict(fusion=None))
