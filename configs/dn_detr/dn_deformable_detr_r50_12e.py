# DN-Deformable-DETR++, ResNet-50, 12 epochs: denoising on DAB-Deformable-DETR, without proposals of the encoder.
# Published: 46.0 AP (paper), on 4 or 8 A100s. The paper does not list what "++" comprises; its authors name 46.1 for
# their released code, which is this.
_base_ = '../deformable_detr/dab_deformable_detr_r50_12e.py'

model = dict(type='DNDeformableDETR', dn_cfg=dict(num_groups=5, box_noise_scale=0.4, label_flip_prob=0.2))
