"""The exact codes of a run inside SAELens: importing this module registers the architecture ``seminmf``.

    import seminmf_lightning.integrations.saelens
    from sae_lens import SAE
    sae = SAE.load_from_disk("<run>/saelens/exact")  # written by `seminmf export run=<run> format=saelens`

Legend:  x (..., d) raw activations   F (..., m) features   D (k, d) dictionary   W_dec (m, d) in data units
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

try:
    from sae_lens import SAE, SAEConfig, register_sae_class
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("seminmf_lightning.integrations.saelens needs: pip install sae-lens") from error
from torch import Tensor, nn

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.encoders import Encode
from seminmf_lightning.integrations.formats.saelens import ARCHITECTURE
from seminmf_lightning.learners import Recipe


@dataclass
class SemiNMFSAEConfig(SAEConfig):
    """Settings in ``cfg.json``: those of every autoencoder, and what the run's encoder needs."""

    recipe: dict[str, Any] = field(default_factory=dict)
    """Settings of a :class:`~seminmf_lightning.learners.Recipe`."""
    scale: float = 1.0
    """Rows are divided by it."""
    effort: list[float] = field(default_factory=list)
    """Work per row that the encoder was calibrated to."""

    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE


class SemiNMFSAE(SAE[SemiNMFSAEConfig]):
    """Encodes by the run's own encoder, at inference; a concept with codes of both signs is two features.

    Features have no gradient.  Its decoder is that of every autoencoder: edits of features work as usual.
    """

    def initialize_weights(self) -> None:
        super().initialize_weights()
        del self.W_enc  # rows are not encoded by a product
        k = Recipe(**self.cfg.recipe).nb_concepts
        shape = k, self.cfg.d_in
        self.D = nn.Parameter(torch.zeros(shape, dtype=self.dtype, device=self.device), requires_grad=False)
        mean = torch.zeros(self.cfg.d_in, dtype=torch.float64, device=self.device)
        self.mean = nn.Parameter(mean, requires_grad=False)
        self._encoding: tuple[Any, Encode] | None = None

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        state_dict.setdefault("mean", torch.zeros(self.cfg.d_in, dtype=torch.float64))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return features (..., m) of activations (..., d)."""
        sae_in = self.hook_sae_input(self.reshape_fn_in(x.to(self.dtype)))
        mean = self.mean if self.mean.any() else None
        A = Normalizer(self.cfg.scale, mean).apply(sae_in.reshape(-1, self.cfg.d_in))
        Z = self._encode(A)
        if self.cfg.d_sae != len(self.D):
            Z = torch.cat([Z.clamp(min=0), (-Z).clamp(min=0)], dim=1)
        F = Z.to(self.dtype).reshape(*sae_in.shape[:-1], self.cfg.d_sae)
        return self.hook_sae_acts_post(self.hook_sae_acts_pre(F))

    def decode(self, feature_acts: Tensor) -> Tensor:
        """Return activations (..., d) for features (..., m)."""
        out = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(out), self.d_head)

    def fold_W_dec_norm(self) -> None:  # noqa: N802  (SAELens's name)
        raise NotImplementedError(
            "features are the run's codes: the encoder is no product that could be scaled"
        )

    def _encode(self, A: Tensor) -> Tensor:
        """Encode normalised rows; the dictionary is factored once, and again after it moved."""
        key = (self.D.data_ptr(), self.D._version, self.D.device)
        if self._encoding is None or self._encoding[0] != key:
            encoder = Recipe(**self.cfg.recipe).encoder
            self._encoding = key, encoder.precise(self.D.detach().float(), tuple(self.cfg.effort))
        return self._encoding[1](A.float())


register_sae_class(ARCHITECTURE, SemiNMFSAE, SemiNMFSAEConfig)
