# DN-Deformable-DETR++, ResNet-50, 12 epochs: denoising on a two-stage DAB-Deformable-DETR that refines its boxes.
# The paper does not list what "++" comprises; here: two stages, no dropout, feed-forward layers of 2048 as in DINO.
_base_ = '../deformable_detr/dab_deformable_detr_r50_12e.py'

model = dict(
    type='DNDeformableDETR',
    as_two_stage=True,
    dn_cfg=dict(num_groups=5, box_noise_scale=0.4, label_flip_prob=0.2),
)
