# mmdet's DDQ-DETR in this package, with an NMS that finds more to remove. Written out are the number of levels, and
# heads of the encoder, as masks of the decoder are made for as many.
_base_ = 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py'
model = dict(
    type='StableDDQDETR',
    num_feature_levels=4,
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_heads=8))),
    dqs_cfg=dict(iou_threshold=0.6),
)
