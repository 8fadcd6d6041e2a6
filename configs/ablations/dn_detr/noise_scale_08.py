# DN-DETR with box noise of scale 0.8 instead of 0.4.
_base_ = '../../dn_detr/dn_detr_r50_50e.py'

model = dict(dn_cfg=dict(box_noise_scale=0.8))
