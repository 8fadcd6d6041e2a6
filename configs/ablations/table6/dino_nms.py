# DINO with NMS at test time, trained as row 0: row 1 of Table 6, the baseline of the ablations.
# A checkpoint of dino_r50_12e fits: tools/test.py with this config and that checkpoint saves the training.
_base_ = '../../dino/dino_r50_12e.py'

model = dict(
    bbox_head=dict(type='StableDINOHead'),  # mmdet's head does no NMS
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
    test_cfg=dict(nms=dict(type='nms', iou_threshold=0.8)),
)
