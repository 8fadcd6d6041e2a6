# DN-DETR with one group of denoising queries and no attention mask: ground truth leaks.
_base_ = 'groups_1.py'

model = dict(dn_cfg=dict(hide_denoising=False, isolate_groups=False))
