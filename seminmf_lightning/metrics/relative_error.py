"""The reconstruction error beside the size of the rows.

Legend:  A (n, d) activations   A_hat = Z D (n, d)
"""

from __future__ import annotations

from torch import Tensor

from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value


class RelativeError(DictionaryMetric):
    """``relative_l2``: ``||A - A_hat||_F / ||A||_F`` in data units, no unit; the mean of A counts as signal.

    0 is exact, 1 is as good as predicting zeros.  Where every row is zero: NaN if they are reconstructed,
    else infinite.
    """

    values = (Value("relative_l2", "||A - A_hat|| / ||A||, data units"),)
    squared_error: Tensor
    squares: Tensor

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        self.add_sums(squared_error=(), squares=())

    def update(self, A: Tensor, A_hat: Tensor) -> None:
        A = A.double()
        self.squared_error += (A - A_hat).square().sum()
        self.squares += A.square().sum()

    def compute(self) -> dict[str, float]:
        return {"relative_l2": float((self.squared_error / self.squares).sqrt())}
