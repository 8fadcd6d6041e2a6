# DINO, 5 scales, ResNet-50, 12 epochs: Table 2, with the backbone's features of stride 4 as the fifth scale.
# Published: 49.4 AP (its authors), on 16 GPUs with 1 image each.
_base_ = ['dino_r50_12e.py', '../_base_/five_scales.py']

model = _base_.five_scales
