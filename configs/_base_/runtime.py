# What every config of this package needs: the plugin itself, and the paper's seed.
custom_imports = dict(imports=['mmdet_stable'], allow_failed_imports=False)
randomness = dict(seed=60)
