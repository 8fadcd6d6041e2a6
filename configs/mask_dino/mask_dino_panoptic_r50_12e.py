# MaskDINO, ResNet-50, 12 epochs of COCO panoptic segmentation: 80 things and 53 kinds of stuff, boxes for things only.
# Published: 49.0 PQ (54.8 things, 40.2 stuff), 43.2 box AP, 40.4 mask AP.
_base_ = ['mask_dino_r50_12e.py', '../_base_/coco_panoptic.py']

num_things, num_classes = 80, 133
costs = _base_.model.train_cfg.assigner.match_costs
model = dict(
    initialize_box_type='no',
    data_preprocessor=_base_.panoptic_data_preprocessor,
    bbox_head=dict(num_classes=num_classes, num_things=num_things, things_only_boxes=True),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                costs[0],
                dict(type='ThingsOnlyCost', cost=costs[1], num_things=num_things),
                dict(type='ThingsOnlyCost', cost=costs[2], num_things=num_things),
                costs[3],
                costs[4],
            ]
        )
    ),
    test_cfg=dict(panoptic_on=True),
)
train_dataloader = dict(dataset=_base_.panoptic_train_dataset)
val_dataloader = dict(dataset=_base_.panoptic_val_dataset)
test_dataloader = val_dataloader
val_evaluator = _base_.panoptic_evaluator
test_evaluator = val_evaluator
