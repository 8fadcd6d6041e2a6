# What every config of this package needs: the plugin itself, checks before the first step, and the paper's seed.
custom_imports = dict(imports=['mmdet_stable'], allow_failed_imports=False)
custom_hooks = [dict(type='DatasetCheckHook'), dict(type='FineTuneClassesHook')]
randomness = dict(seed=60)
