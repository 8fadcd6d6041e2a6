# Stable matching with U-shaped fusion, where late encoder layers take in early ones: row 5 of Table 6.
_base_ = '../../stable_dino_r50_12e.py'

model = dict(encoder=dict(fusion=dict(type='UShapedMemoryFusion')))
