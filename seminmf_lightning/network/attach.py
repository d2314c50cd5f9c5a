"""Attach a dictionary to a layer of a network.

Legend:  A (batch, tokens, d) activations   Z (batch, tokens, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seminmf_lightning.core.checks import one_of
from seminmf_lightning.core.rows import as_floats, finite
from seminmf_lightning.estimator import SemiNMF
from seminmf_lightning.learners.in_memory import BLOCK_ROWS
from seminmf_lightning.network.edits import Edit, Strength, Tokens, checked_strengths, concept_numbers
from seminmf_lightning.network.hooks import changed, find_layer
from seminmf_lightning.network.origin import check_origin
from seminmf_lightning.network.rows import LAYOUTS, rows_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from seminmf_lightning.encoders import Encode


def attach(
    model: nn.Module, layer: str, dictionary: SemiNMF | str | os.PathLike[str], *, replace: bool = False,
    error: bool = False, layout: str = "auto", force: bool = False,
) -> Concepts:  # fmt: skip
    """Read and change the concepts of a layer within a ``with`` block.

    Codes are those of :meth:`SemiNMF.encode` on the layer's activations, of its first call in a forward pass
    (``name@1``: the second); changed activations ``a'`` are, with codes ``z`` and changed codes ``z'``,

    - ``a + scale * (z' - z) D`` by default: what the dictionary does not explain, the error, is kept;
    - ``decode(z') = scale * z' D + mean`` with ``replace=True``;
    - ``a`` where nothing is changed, and with ``replace=True, error=True``, which adds the error again.

    Encoding is in float32 (float64 for a model in float64), outside autocast, and the result has the type of
    the activations.

    Gradients do not pass through the encoder.  Where they are recorded and activations are replaced or
    changed, they reach ``concepts.codes`` (a leaf: read ``concepts.codes.grad``), the strengths of
    :meth:`Concepts.steer` and :meth:`Concepts.clamp` that are tensors, and, unless the error is dropped, the
    layers before, as the identity.  With gradient checkpointing, call ``backward`` within the block: it runs
    layers again, with their hooks or without.

    Args:
        model: any module; its parameters are left alone.
        layer: dotted name, with ``:input`` for what the module is given; see
            :mod:`seminmf_lightning.harvest.layers`.
        dictionary: a fitted model, a file of :meth:`SemiNMF.save`, or a run directory.
        replace: replace activations by their reconstruction.
        error: with ``replace``, add the error of the reconstruction.
        layout: axes of maps, ``channels_first``, ``channels_last`` or ``auto``: the axis of d features.
        force: attach a dictionary that was learned from another model or layer.

    Raises:
        TypeError: ``model`` is no module, ``layer`` no name, or ``dictionary`` of another kind.
        ValueError: an unknown layer, or a compiled one; a dictionary of another model or layer; in the
            forward pass, activations of another width, or with NaN, or changed beyond their type's range.

    >>> from seminmf_lightning import SemiNMF
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    >>> A = network(torch.randn(50, 4)).detach()
    >>> dictionary = SemiNMF(nb_concepts=6, l1_penalty=0.1)
    >>> _ = dictionary.fit(A, max_iter=3)
    >>> with attach(network, "1", dictionary) as concepts:
    ...     _ = concepts.steer({2: 4.0})
    ...     steered = network(torch.randn(5, 4))
    >>> concepts.codes.shape
    torch.Size([5, 6])
    """
    one_of("layout", layout, LAYOUTS)
    if error and not replace:
        raise ValueError("error=True adds the error to a reconstruction; it goes with replace=True")
    found = find_layer(model, layer)
    if not isinstance(dictionary, SemiNMF | str | os.PathLike):
        raise TypeError(
            f"dictionary must be a SemiNMF, a file or a run directory, got {type(dictionary).__name__}; "
            "SemiNMF.from_dictionary(D) takes atoms"
        )
    learned = dictionary if isinstance(dictionary, SemiNMF) else SemiNMF.load(dictionary)
    learned.get_dictionary()
    if learned.network is not None and not force:
        check_origin(model, found, learned.network)
    return Concepts(model, found, learned, replace and not error, replace, layout)


class Concepts:
    """The concepts of a layer, from :func:`attach`.  Edits hold from the next pass on, in their order."""

    def __init__(
        self, model: nn.Module, layer: Any, dictionary: SemiNMF, drop_error: bool, replace: bool, layout: str
    ) -> None:
        self.model, self.layer, self.dictionary, self.layout = model, layer, dictionary, layout
        self.replace, self.drop_error = replace, drop_error
        self.edits: list[Edit] = []
        self._codes: Tensor | None = None
        self._ready: dict[torch.device, tuple[Tensor, Encode]] = {}
        self._open: ExitStack | None = None

    def ablate(self, concepts: Iterable[int]) -> Self:
        """Set the codes of concepts to zero."""
        return self._add(dict.fromkeys(concept_numbers(concepts, self._size), 0.0))

    def clamp(self, values: Mapping[int, Strength], tokens: Tokens = None) -> Self:
        """Set codes, ``z_j <- value``, in the units of :meth:`SemiNMF.encode`, at ``tokens`` (None: all)."""
        return self._add(values, tokens=tokens)

    def steer(self, strengths: Mapping[int, Strength], tokens: Tokens = None) -> Self:
        """Add to codes, ``z_j <- z_j + strength``, whatever the encoder found.

        Args:
            strengths: by number of the concept; a tensor may carry gradients.
            tokens: a slice or list of positions in this pass, or a boolean mask (batch, tokens); None: all.
        """
        return self._add(strengths, adds=True, tokens=tokens)

    def clear(self) -> Self:
        """Forget all edits."""
        self.edits.clear()
        return self

    @property
    def codes(self) -> Tensor:
        """Codes of the last forward pass before edits, (batch, tokens, k); k is last for maps, too.

        A RuntimeError if that pass, such as one past an expert of a mixture, did not reach the layer.
        """
        if self._codes is None:
            raise RuntimeError(f"no codes yet: call the model, so that layer {self.layer!s} is reached")
        return self._codes

    @property
    def _size(self) -> int:
        return len(self.dictionary.get_dictionary())

    def _add(self, values: Mapping[int, Strength], **how: Any) -> Self:
        self.edits.append(Edit(checked_strengths(values, self._size), **how))
        return self

    def __enter__(self) -> Self:
        if self._open is not None:
            raise RuntimeError("this dictionary is attached already; call attach(...) once for each `with`")
        self._ready.clear()  # it may have been fitted again since
        self._open = ExitStack()
        forget = self.model.register_forward_pre_hook(self._forget)
        self._open.callback(forget.remove)
        self._visits = self._open.enter_context(changed(self.model, self.layer, self._change))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._open is not None
        self._open.close()
        self._open = None
        if kind is None and self._visits.passes and not self._visits.reached:
            raise ValueError(
                f"layer {self.layer!s} was not reached in {self._visits.passes} forward passes; choose a "
                "layer that the model calls, or an earlier call"
            )
        if kind is None and (self.edits or self.replace) and not self._visits.reached:
            warnings.warn(
                "nothing was changed: the model was not called, or by a function of torch.compile, which may "
                "call no hooks; compile it within the block, or not at all",
                stacklevel=2,
            )

    def _forget(self, *_: Any) -> None:
        """Drop the codes of the pass before: this one may not reach the layer."""
        self._codes = None

    def _change(self, x: Tensor) -> Tensor | None:
        d = self.dictionary.get_dictionary().shape[1]
        rows = rows_of(x, d, self.layout, str(self.layer))
        with torch.autocast(x.device.type, enabled=False):
            A = as_floats(rows.values)
            Z = self._encode(A.detach())
            if not self.replace and not self.edits:
                self._codes = Z
                return None
            if torch.is_grad_enabled():
                Z.requires_grad_()
            self._codes, changed_codes = Z, Z
            for edit in self.edits:
                changed_codes = edit.apply(changed_codes)
            normalizer, D = self.dictionary.normalizer, self._on(x.device)[0].to(A)
            if self.drop_error:
                result = normalizer.undo(changed_codes @ D)
            else:
                result = A + normalizer.scale * ((changed_codes - Z.detach()) @ D)
            result = result.to(x.dtype)
            if not result.isfinite().all():
                raise ValueError(
                    f"layer {self.layer!s}: changed activations exceed the largest {x.dtype} "
                    f"({torch.finfo(x.dtype).max:.3g}); lower the strengths, or run the model in float32"
                )
            return rows.restore(result)

    @torch.no_grad()
    def _encode(self, A: Tensor) -> Tensor:
        flat = finite(f"layer {self.layer!s}", A.reshape(-1, A.shape[-1]))
        encode, normalizer = self._on(A.device)[1], self.dictionary.normalizer
        Z = torch.cat([encode(normalizer.apply(block)) for block in flat.split(BLOCK_ROWS)])
        return Z.reshape(*A.shape[:-1], Z.shape[1])

    def _on(self, device: torch.device) -> tuple[Tensor, Encode]:
        """Return the dictionary on a device, with its encoding: factored once for all passes."""
        if device not in self._ready:
            D = self.dictionary.get_dictionary().detach().to(device)
            self._ready[device] = D, self.dictionary.encoder.precise(D, self.dictionary.effort)
        return self._ready[device]
