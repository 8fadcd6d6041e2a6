# DN-DETR with denoising groups that see each other, not in the paper.
_base_ = '../../dn_detr/dn_detr_r50_50e.py'

model = dict(dn_cfg=dict(isolate_groups=False))
