# Stable matching, for any detector of the family: position-supervised loss, position-modulated cost, NMS at test time.
# A config takes all of it by `model = _base_.stable_matching`, or single parts by their names.
l1_cost = dict(type='BBoxL1Cost', weight=5.0, box_format='xywh')  # mmdet's name for cxcywh
giou_cost = dict(type='IoUCost', iou_mode='giou', weight=2.0)
modulated_cost = dict(type='PositionModulatedFocalCost', f2_power=0.5, weight=2.0)
stable_matching = dict(
    bbox_head=dict(
        target_rescale='one',  # as in the released config; the paper also describes 'max_iou'
        loss_cls=dict(_delete_=True, type='PositionSupervisedLoss', f1='s^2', loss_weight=6.0),
    ),
    train_cfg=dict(
        assigner=dict(type='StableHungarianAssigner', match_costs=[modulated_cost, l1_cost, giou_cost]),
    ),
    test_cfg=dict(nms=dict(type='nms', iou_threshold=0.8)),
)
