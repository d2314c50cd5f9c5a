"""How similar the atoms of a dictionary are to one another."""

from __future__ import annotations

from seminmf_lightning.core.similarity import collinearity
from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value


class Collinearity(DictionaryMetric):
    """Largest and mean cosine, see :func:`~seminmf_lightning.core.similarity.collinearity`."""

    values = (
        Value("collinearity_max", "largest cosine of two atoms"),
        Value("collinearity_mean", "mean cosine of two atoms"),
    )

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        self.D, self.sign_is_free = fitted.D, fitted.sign_is_free

    def compute(self) -> dict[str, float]:
        largest, mean = collinearity(self.D, sign_is_free=self.sign_is_free)
        return {"collinearity_max": largest, "collinearity_mean": mean}
