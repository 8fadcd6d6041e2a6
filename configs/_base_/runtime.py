# What every config of this package needs: the plugin, the papers' seed, and checks before the first step. A config
# takes these as `default_hooks = _base_.checks`; custom_hooks are a list, which a child config would replace.
custom_imports = dict(imports=['mmdet_stable'], allow_failed_imports=False)
randomness = dict(seed=60)
checks = dict(
    dataset_check=dict(type='DatasetCheckHook'),
    fine_tune_classes=dict(type='FineTuneClassesHook'),
)
