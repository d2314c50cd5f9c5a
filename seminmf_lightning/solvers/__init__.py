"""Dictionary solvers: one file each, found by its name."""

from seminmf_lightning.solvers.base import Solver, StatisticsSolver

__all__ = ["Solver", "StatisticsSolver"]
