# A small Stable-Deformable-DETR that learns handwritten digits from scratch; as an overlay it shrinks Table 5. H-DETR's
# further queries are shrunk by --cfg-options model.one_to_many.num_queries=120 model.one_to_many.num_copies=4.
_base_ = [
    'deformable_detr/stable_deformable_detr_r50_12e.py',
    '_base_/digit_scenes.py',
    '_base_/small_deformable.py',
]

model = _base_.small_deformable

train_dataloader = _base_.digit_scenes.train_dataloader
val_dataloader = _base_.digit_scenes.val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.digit_scenes.val_evaluator
test_evaluator = val_evaluator
optim_wrapper = _base_.digit_scenes.optim_wrapper
train_cfg = _base_.digit_scenes.train_cfg
param_scheduler = _base_.digit_scenes.param_scheduler
default_hooks = _base_.digit_scenes.default_hooks
