"""Dictionary solvers: one file each, found by the name of the file."""

from seminmf_lightning.solvers.base import Solver

__all__ = ["Solver"]
