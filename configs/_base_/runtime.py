# What every config of this package needs: the plugin, Stable-DINO's seed, checks before the first step, and hooks that
# let a training survive interruption. A config takes the latter two as `default_hooks = _base_.checks`; custom_hooks
# are a list, which a child config would replace.
custom_imports = dict(imports=['mmdet_stable'], allow_failed_imports=False)
randomness = dict(seed=60)
checks = dict(
    dataset_check=dict(type='DatasetCheckHook'),
    fine_tune_classes=dict(type='FineTuneClassesHook'),
    epoch_seed=dict(type='EpochSeedHook'),
    checkpoint=dict(type='AtomicCheckpointHook'),
)
