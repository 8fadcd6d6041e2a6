"""One-to-many queries (H-DETR): several queries learn from each ground truth, and are gone at test time."""

from typing import NamedTuple, Optional

from mmdet.utils import OptConfigType

from mmdet_stable.structures import Matched, Segment


class OneToMany(NamedTuple):
    """Queries for training only, several of which answer for each ground truth.

    They lie behind the one-to-one queries and are selected, or learned, the same way: the encoder's best proposals
    become one-to-one queries, the next best one-to-many queries. Neither sees the other in self-attention.

    Attributes:
        num_queries: how many.
        num_copies: to how many of them each ground truth is matched; k of the paper.
        loss_weight: factor of their losses; lambda of the paper.

    Source: arXiv:2207.13080 Sec. 3.2, hybrid branch scheme.
    """

    num_queries: int
    num_copies: int = 6
    loss_weight: float = 1.0

    @classmethod
    def from_cfg(cls, cfg: OptConfigType) -> 'Optional[OneToMany]':
        """The settings of a config, or None for none; raises ValueError for numbers that make no sense."""
        if not cfg:
            return None
        settings = cls(**cfg)
        if settings.num_queries < 1 or settings.num_copies < 1 or settings.loss_weight < 0:
            raise ValueError(
                f'one_to_many={settings._asdict()}: num_queries and num_copies must be at least 1 and loss_weight at '
                'least 0; leave one_to_many out to train without'
            )
        return settings

    @property
    def segment(self) -> Segment:
        """These queries in the plan."""
        return Segment('o2m_', self.num_queries, Matched(self.num_copies, self.loss_weight))
