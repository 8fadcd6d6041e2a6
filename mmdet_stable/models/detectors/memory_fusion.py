"""Memory fusion for the detectors of mmdet that have a deformable encoder."""

from mmdet_stable.models.layers import MemoryFusionEncoder
from mmdet_stable.utils import CheckedLoading


class MemoryFusionDetector(CheckedLoading):
    """To be inherited from before mmdet's ``DeformableDETR`` or a detector derived from it.

    Args:
        encoder: as in mmdet, plus ``fusion``: config of a memory fusion, e.g. ``dict(type='DenseMemoryFusion')``.
        Others: as in mmdet.
    """

    def _init_layers(self) -> None:
        encoder = self.encoder
        self.encoder = {key: value for key, value in encoder.items() if key != 'fusion'}
        super()._init_layers()
        self.encoder = MemoryFusionEncoder(**encoder)
