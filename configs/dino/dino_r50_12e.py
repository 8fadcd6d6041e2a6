# DINO, 4 scales, ResNet-50, 12 epochs: baseline of Table 2 and row 0 of Table 6, trained like what is compared with it.
# Published: 49.0 AP (its authors), on 8 GPUs with 2 images each; 88,716 steps. On one H200, 2 images of 800 x 1216 take
# 0.21 to 0.26 s and 8.3 GiB (measured by us with one more stage frozen, without reading data; docs/benchmarks.md).
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/runtime.py']

# As in the released config; to fine-tune mmdet's DINO checkpoint, keep its own: offset=0.0, temperature=20.
model = dict(backbone=dict(frozen_stages=0), positional_encoding=dict(offset=-0.5, temperature=10000))
default_hooks = _base_.checks
# Learning rate 1e-4, of the backbone 1e-5. fused: the same steps, three times faster.
optim_wrapper = dict(optimizer=dict(fused=True), paramwise_cfg=dict(norm_decay_mult=0.0))
