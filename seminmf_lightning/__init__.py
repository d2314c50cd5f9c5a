"""Dictionaries of concepts from neural activations: ``A ~ Z D``.

D >= 0 and Z is free in sign, unless ``nonnegative`` says otherwise: ``codes``, ``both`` or ``none``.

Importing the package loads nothing: each public name is imported when it is first used, so that ``SemiNMF``
needs torch, numpy and scipy, and only the Lightning classes need Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seminmf_lightning.data import ActivationDataModule
    from seminmf_lightning.estimator import SemiNMF
    from seminmf_lightning.integrations.hub import HubSemiNMF
    from seminmf_lightning.integrations.sklearn import SemiNMFTransformer
    from seminmf_lightning.network import attach
    from seminmf_lightning.training.module import SemiNMFModule

    __version__: str

__all__ = [
    "ActivationDataModule",
    "HubSemiNMF",
    "SemiNMF",
    "SemiNMFModule",
    "SemiNMFTransformer",
    "__version__",
    "attach",
]

_MODULES = {
    "ActivationDataModule": "seminmf_lightning.data",
    "HubSemiNMF": "seminmf_lightning.integrations.hub",  # needs the extra `hub`
    "SemiNMF": "seminmf_lightning.estimator",
    "SemiNMFModule": "seminmf_lightning.training.module",
    "SemiNMFTransformer": "seminmf_lightning.integrations.sklearn",  # needs the extra `sklearn`
    "attach": "seminmf_lightning.network",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("seminmf-lightning")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(
            f"module 'seminmf_lightning' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
