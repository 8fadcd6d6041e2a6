# Stable-MaskDINO whose position is the IoU of masks, in loss and cost, in place of the IoU of boxes.
_base_ = '../../mask_dino/stable_mask_dino_r50_12e.py'

costs = _base_.model.train_cfg.assigner.match_costs
model = dict(
    bbox_head=dict(position_metric='mask'),
    train_cfg=dict(assigner=dict(match_costs=[dict(costs[0], position_metric='mask'), *costs[1:]])),
)
