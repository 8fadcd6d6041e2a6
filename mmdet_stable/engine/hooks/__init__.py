from .atomic_checkpoint_hook import AtomicCheckpointHook
from .dataset_check_hook import DatasetCheckHook, check_dataset
from .denoising_noise_hook import DenoisingNoiseHook
from .epoch_seed_hook import EpochSeedHook
from .fine_tune_classes_hook import FineTuneClassesHook
from .matching_stability_hook import MatchingStabilityHook
from .optimizer_kernels_hook import OptimizerKernelsHook

__all__ = [
    'AtomicCheckpointHook',
    'DatasetCheckHook',
    'DenoisingNoiseHook',
    'EpochSeedHook',
    'FineTuneClassesHook',
    'MatchingStabilityHook',
    'OptimizerKernelsHook',
    'check_dataset',
]
