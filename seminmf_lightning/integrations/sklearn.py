"""Semi-NMF as a scikit-learn transformer, for pipelines and grid searches.

Legend:  X (n, d) rows, called A elsewhere   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_array
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "seminmf_lightning.integrations.sklearn needs: pip install 'seminmf-lightning[sklearn]'"
    ) from error

from seminmf_lightning.estimator import SemiNMF

if TYPE_CHECKING:
    from typing_extensions import Self

FLOATS = (np.float64, np.float32)


class SemiNMFTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """``X ~ Z D`` with ``D >= 0`` and Z free in sign, or as ``nonnegative`` says; ``transform`` returns Z.

    Parameters are those of :class:`~seminmf_lightning.learners.Recipe`, of
    :class:`~seminmf_lightning.SemiNMF` and of its ``fit``, checked in :meth:`fit`.  The default solver is
    ``hals``, one solver for a whole grid over ``l1_penalty``.  Rows are in memory and dense: float32 stays
    float32, other numbers become float64.

    >>> X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    >>> SemiNMFTransformer(nb_concepts=2, max_iter=5).fit_transform(X).shape
    (20, 2)

    Attributes:
        components_: D (k, d); ``X ~ scale * (Z D) + mean``, with the scale and mean of ``model_.normalizer``.
        model_: the fitted :class:`~seminmf_lightning.SemiNMF`, which can be saved.
        n_features_in_: d.
        n_iter_: iterations done, at most ``max_iter``.

    Raises:
        TypeError, ValueError: in :meth:`fit`: a bad parameter, bad rows, or fewer rows than concepts.
    """

    def __init__(
        self, nb_concepts: int = 64, *, solver: str | Mapping[str, Any] = "hals", l1_penalty: float = 0.0,
        target_l0: float | None = None, nonnegative: str = "dictionary",
        init: str | Mapping[str, Any] = "data",
        encoder: str | Mapping[str, Any] = "auto", statistics: str = "auto", normalize: str = "scale",
        tol: float = 1e-4, max_iter: int = 500, seed: int = 0, device: str | torch.device = "cpu",
        verbose: bool = False,
    ) -> None:  # fmt: skip
        self.nb_concepts = nb_concepts
        self.solver = solver
        self.l1_penalty = l1_penalty
        self.target_l0 = target_l0
        self.nonnegative = nonnegative
        self.init = init
        self.encoder = encoder
        self.statistics = statistics
        self.normalize = normalize
        self.tol = tol
        self.max_iter = max_iter
        self.seed = seed
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn D from rows X (n, d); ``y`` is ignored."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Learn D from rows X (n, d) and return their codes (n, k)."""
        settings = {name: value for name, value in self.get_params(deep=False).items() if name != "max_iter"}
        model = SemiNMF(**settings)
        X = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)  # one row has no variance to explain
        Z, D = model.fit(X, self.max_iter)
        self.model_, self.components_, self.n_iter_ = model, D.cpu().numpy(), model.iterations
        return Z.cpu().numpy()

    def transform(self, X: Any) -> np.ndarray:
        """Return the codes (n, k) of rows X (n, d)."""
        check_is_fitted(self)
        return self.model_.encode(self._rows(X)).cpu().numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the rows (n, d), in data units, that codes X (n, k) stand for."""
        check_is_fitted(self)
        return self.model_.decode(check_array(X, dtype=FLOATS, input_name="X")).cpu().numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return R2 of the reconstruction, which a grid search maximises.

        ``1 - ||X - X_hat||_F^2 / ||X - mean||_F^2`` for rows X (n, d) and their feature means.
        """
        check_is_fitted(self)
        return self.model_.evaluate(self._rows(X))["r2"]

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def _rows(self, X: Any) -> np.ndarray:
        return validate_data(self, X, dtype=FLOATS, reset=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
