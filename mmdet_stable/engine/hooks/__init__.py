from .dataset_check_hook import DatasetCheckHook, check_dataset
from .denoising_noise_hook import DenoisingNoiseHook
from .fine_tune_classes_hook import FineTuneClassesHook
from .matching_stability_hook import MatchingStabilityHook

__all__ = ['DatasetCheckHook', 'DenoisingNoiseHook', 'FineTuneClassesHook', 'MatchingStabilityHook', 'check_dataset']
