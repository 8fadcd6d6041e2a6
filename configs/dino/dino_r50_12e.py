# DINO, 4 scales, ResNet-50, 12 epochs: baseline of Table 2 and row 0 of Table 6, trained like what is compared with it.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/runtime.py']

# As in the released config; to fine-tune mmdet's DINO checkpoint, keep its own: offset=0.0, temperature=20.
model = dict(positional_encoding=dict(offset=-0.5, temperature=10000))
default_hooks = _base_.checks
optim_wrapper = dict(optimizer=dict(fused=True))  # the same steps, three times faster
