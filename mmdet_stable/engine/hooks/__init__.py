from .dataset_check_hook import DatasetCheckHook, check_dataset
from .denoising_noise_hook import DenoisingNoiseHook
from .fine_tune_classes_hook import FineTuneClassesHook

__all__ = ['DatasetCheckHook', 'DenoisingNoiseHook', 'FineTuneClassesHook', 'check_dataset']
