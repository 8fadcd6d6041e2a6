# Stable matching with simple fusion, of the encoder's input and output only: row 4 of Table 6.
_base_ = '../../stable_dino_r50_12e.py'

model = dict(encoder=dict(fusion=dict(type='SimpleMemoryFusion')))
