"""Old import path of :class:`~seminmf_lightning.HubSemiNMF`, kept for one release."""

import warnings

from seminmf_lightning.integrations.hub import HubSemiNMF

__all__ = ["HubSemiNMF"]

warnings.warn(
    "seminmf_lightning.hub is renamed: use `from seminmf_lightning import HubSemiNMF`",
    DeprecationWarning,
    stacklevel=2,
)
