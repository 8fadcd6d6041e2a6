"""Figures."""

from .convergence import plot_convergence

__all__ = ['plot_convergence']
