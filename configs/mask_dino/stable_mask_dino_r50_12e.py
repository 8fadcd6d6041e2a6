# Stable-MaskDINO, ResNet-50, 12 epochs of COCO instances: MaskDINO with stable matching and dense fusion; Table 4.
# Published: 42.1 mask AP, 47.0 box AP. The paper gives no settings; these are our choices (docs/conventions.md).
_base_ = ['mask_dino_r50_12e.py', '../_base_/stable_mask_dino.py']

model = dict(
    neck=dict(encoder=dict(fusion=dict(type='DenseMemoryFusion'))),
    bbox_head=_base_.stable_mask_dino.bbox_head,
    train_cfg=_base_.stable_mask_dino.train_cfg,
)
