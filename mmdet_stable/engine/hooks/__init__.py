from .dataset_check_hook import DatasetCheckHook, check_dataset
from .fine_tune_classes_hook import FineTuneClassesHook

__all__ = ['DatasetCheckHook', 'FineTuneClassesHook', 'check_dataset']
