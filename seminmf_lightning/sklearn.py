"""Old import path of :class:`~seminmf_lightning.SemiNMFTransformer`, kept for one release."""

import warnings

from seminmf_lightning.integrations.sklearn import SemiNMFTransformer

__all__ = ["SemiNMFTransformer"]

warnings.warn(
    "seminmf_lightning.sklearn is renamed: use `from seminmf_lightning import SemiNMFTransformer`",
    DeprecationWarning,
    stacklevel=2,
)
