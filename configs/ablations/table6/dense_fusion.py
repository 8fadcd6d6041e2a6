# Dense memory fusion alone, with DINO's own matching: row 7 of Table 6.
_base_ = 'dino_nms.py'

model = dict(encoder=dict(fusion=dict(_delete_=True, type='DenseMemoryFusion')))
