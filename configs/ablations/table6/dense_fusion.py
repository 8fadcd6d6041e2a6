# Dense memory fusion alone, with DINO's own matching: row 7 of Table 6.
_base_ = 'dino_nms.py'

model = dict(type='StableDINO', encoder=dict(fusion=dict(type='DenseMemoryFusion')))
