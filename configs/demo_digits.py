# A small Stable-DINO that learns handwritten digits from scratch on two CPU cores: `make demo`.
_base_ = ['stable_dino_r50_12e.py', '_base_/digit_scenes.py', '_base_/small_deformable.py']

# Detector, head and assigner for baselines, too: mmdet's DINO is fixed at width 256. 50 denoising queries.
model = dict(
    _base_.small_deformable,
    type='StableDINO',
    bbox_head=dict(_base_.small_deformable.bbox_head, type='StableDINOHead'),
    dn_cfg=dict(
        _delete_=True,
        type='DNQueryGenerator',
        num_queries=25,
        box_noise='corners',
        box_noise_scale=1.0,
        label_flip_prob=0.25,
        negatives='near',
    ),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)

train_dataloader = _base_.digit_scenes.train_dataloader
val_dataloader = _base_.digit_scenes.val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.digit_scenes.val_evaluator
test_evaluator = val_evaluator
optim_wrapper = _base_.digit_scenes.optim_wrapper
train_cfg = _base_.digit_scenes.train_cfg
param_scheduler = _base_.digit_scenes.param_scheduler
default_hooks = _base_.digit_scenes.default_hooks
