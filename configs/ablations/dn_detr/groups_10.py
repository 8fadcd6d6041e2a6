# DN-DETR with ten groups of denoising queries instead of five.
_base_ = '../../dn_detr/dn_detr_r50_50e.py'

model = dict(dn_cfg=dict(num_groups=10, max_queries=1200))
