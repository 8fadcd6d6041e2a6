# DN-DETR with one group of denoising queries whose labels are never flipped.
_base_ = 'groups_1.py'

model = dict(dn_cfg=dict(label_flip_prob=0.0))
