"""What a language model writes while a concept is steered, and how far that is from what it wrote before.

Legend:  ids (1, t) tokens   v words of the vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.network.attach import Concepts

CHECKED_TOKENS = 4
"""Tokens of the text on which a network is checked to be causal."""
ROUNDING = 100
"""Largest change of a logit by a later token, in units of the last place of the largest."""


@dataclass(frozen=True)
class Writing:
    """How tokens are chosen.

    >>> Writing(max_tokens=0)
    Traceback (most recent call last):
    ValueError: max_tokens must be at least 1, got 0
    """

    max_tokens: int = 40
    sample: bool = False
    """Draw tokens; otherwise the likeliest is taken."""
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("max_tokens", self.max_tokens, 1)
        whole_number("seed", self.seed, 0)
        real_number("temperature", self.temperature, 0, exclusive=True)


class Written(NamedTuple):
    """A continuation of the prompt under one strength."""

    strength: float
    """0: the untouched model."""
    tokens: Tensor
    """(t,): the new ones."""
    kl: float
    """KL(untouched || steered) of the distribution of the token after the prompt, in nats."""
    perplexity: float
    """Perplexity of what was written after the prompt, under the untouched model."""


@torch.no_grad()
def write_steered(
    concepts: Concepts, concept: int, strengths: Sequence[float], ids: Tensor, writing: Writing
) -> list[Written]:
    """Continue a prompt with the untouched model, then with each strength of a concept at every token.

    All continuations are drawn with the same seed.

    Args:
        concepts: of :func:`~seminmf_lightning.attach`, not entered yet; its edits are replaced.
        ids: the prompt (1, t), on the model's device.

    Raises:
        ValueError: there is no such concept, or the model returns NaN.
    """
    model = concepts.model
    with concepts:
        distributions, continuations = [], []
        for strength in (0.0, *strengths):
            concepts.clear().steer({concept: strength}) if strength else concepts.clear()
            distributions.append(next_token(model, ids))
            if distributions[-1].isnan().any():
                raise ValueError(
                    f"with strength {strength:g} the model returns NaN; lower the strength, or compute in "
                    "float32: model=transformers model.path=... model.precision=float32"
                )
            continuations.append(_continuation(model, ids, writing))
    before = distributions[0]
    return [
        Written(strength, tokens, float(divergence(before, after)), perplexity(model, ids, tokens))
        for strength, after, tokens in zip((0.0, *strengths), distributions, continuations, strict=True)
    ]


def next_token(model: nn.Module, ids: Tensor) -> Tensor:
    """Return log-probabilities (v,) of the token after ``ids`` (1, t), float32."""
    return _logits(model, ids)[-1].log_softmax(dim=-1)


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """Return KL(before || after) (...) of log-probabilities (..., v), in nats; NaN stays NaN.

    >>> half = torch.tensor([0.5, 0.5, 0.0]).log()  # a word that is never written counts nothing
    >>> round(float(divergence(half, torch.tensor([0.25, 0.75, 0.0]).log())), 4)
    0.1438
    """
    terms = torch.where(before == -torch.inf, 0.0, before.exp() * (before - after))
    return terms.sum(dim=-1).clamp(min=0)


def perplexity(model: nn.Module, ids: Tensor, tokens: Tensor) -> float:
    """Return ``exp`` of the mean cross-entropy of ``tokens`` (t,) after ``ids`` (1, s)."""
    logits = _logits(model, torch.cat([ids, tokens[None]], dim=1))
    predicted = logits[ids.shape[1] - 1 : -1]
    return float(nn.functional.cross_entropy(predicted, tokens).double().exp())


def refuse_unless_causal(model: Any, ids: Tensor) -> None:
    """Raise a ValueError, which names the class, unless a model writes text token by token.

    Args:
        ids: tokens (1, t); the logits at one must not depend on the next.
    """
    name = type(model).__name__
    if not getattr(model, "can_generate", lambda: False)():
        raise ValueError(cannot_write(name))
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(cannot_write(name, "it is an encoder and a decoder, and steers no prompt"))
    some = ids[:, :CHECKED_TOKENS].repeat(1, 2)  # two tokens at least
    with torch.no_grad():
        before = _logits(model, some)
        other = some.clone()
        other[:, -1] = (some[:, -1] + 1) % before.shape[1]
        moved = (_logits(model, other) - before)[:-1].abs().max()
    if before.isnan().any():  # as weights are that the checkpoint lacks
        raise ValueError(cannot_write(name, "the checkpoint has no language head"))
    if moved > ROUNDING * torch.finfo(model.dtype).eps * before.abs().max():
        raise ValueError(cannot_write(name, "its logits at a token depend on later tokens, as in an encoder"))


def cannot_write(name: str, reason: str = "") -> str:
    """Return the message for a network that cannot be prompted."""
    why = f" ({reason})" if reason else ""
    return (
        f"{name} cannot generate text{why}: read its concepts with `seminmf concepts`, change them in Python "
        "with attach(model, layer, run), or measure the network with `seminmf evaluate suite=behaviour`; if "
        "the checkpoint holds a language model, give model=transformers model.path=... model.architecture=..."
    )


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].float()


def _continuation(model: Any, ids: Tensor, writing: Writing) -> Tensor:
    """Return new tokens (t,); of the checkpoint's own settings of generation only its end tokens count."""
    from transformers import GenerationConfig

    own = model.generation_config
    sampling = {"temperature": writing.temperature, "top_k": 0, "top_p": 1.0} if writing.sample else {}
    end = own.eos_token_id
    first = end[0] if isinstance(end, list) else end
    how = GenerationConfig(
        max_new_tokens=writing.max_tokens, do_sample=writing.sample, num_beams=1, repetition_penalty=1.0,
        eos_token_id=end, pad_token_id=first if own.pad_token_id is None else own.pad_token_id,
        bos_token_id=own.bos_token_id, **sampling,
    )  # fmt: skip
    devices = [ids.device] if ids.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(writing.seed)
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
    return whole[0, ids.shape[1] :]
