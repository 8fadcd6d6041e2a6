"""Training on a folder of images in one call: :func:`train`."""

from .plan import PlanError, Wishes, make_plan
from .run import Trained, train

__all__ = ['PlanError', 'Trained', 'Wishes', 'make_plan', 'train']
