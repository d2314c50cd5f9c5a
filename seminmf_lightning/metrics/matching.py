"""How many atoms two dictionaries share."""

from __future__ import annotations

from seminmf_lightning.core.similarity import hungarian_distance, matched_share
from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value


class Matching(DictionaryMetric):
    """Comparison with ``fitted.other``, see :mod:`seminmf_lightning.core.similarity`."""

    values = (
        Value("hungarian_distance", "mean 1 - cosine of matched atoms"),
        Value("matched_share", "matched atoms with cosine >= 0.9"),
    )

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        assert fitted.other is not None
        self.D, self.other, self.sign_is_free = fitted.D, fitted.other, fitted.other_sign_is_free

    @classmethod
    def applies(cls, fitted: Fitted) -> bool:
        return fitted.other is not None

    def compute(self) -> dict[str, float]:
        return {
            "hungarian_distance": hungarian_distance(self.D, self.other, sign_is_free=self.sign_is_free),
            "matched_share": matched_share(self.D, self.other, sign_is_free=self.sign_is_free),
        }
