"""Compare what a network returns with what it returned before, example by example.

Legend:  b examples   t tokens   v words of the vocabulary, or classes   d features
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.activations import describe, first_tensor
from seminmf_lightning.network.steering import divergence
from seminmf_lightning.suites.base import Estimate

TASKS = ("language", "classes", "embedding")


def task_of(network: nn.Module, output: Any, given: str | None = None) -> str:
    """Return the task of a network by its output: logits of tokens or of a class, or hidden states.

    Raises:
        ValueError: logits of tokens by a network that does not generate: what they predict is unknown; or
            ``given`` is a task that does not fit the output.

    >>> task_of(nn.Identity(), torch.zeros(2, 5)), task_of(nn.Identity(), torch.zeros(2, 5), "embedding")
    ('classes', 'embedding')
    """
    logits, name = getattr(output, "logits", None), type(network).__name__
    if not isinstance(logits, Tensor):
        tensor = first_tensor(output)
        bare = tensor is output and tensor is not None and tensor.ndim == 2
        fitting = ["classes", "embedding"] if bare else ["embedding"]
    elif logits.ndim == 2:
        fitting = ["classes"]
    elif getattr(network, "can_generate", lambda: False)():
        fitting = ["language"]
    else:
        raise ValueError(
            f"{name} returns logits {tuple(logits.shape)} and does not generate text; "
            "choose model.architecture=AutoModelForCausalLM, or AutoModel for its embedding"
        )
    if given is not None and given not in fitting:
        raise ValueError(
            f"suite.behaviour.task={given} does not fit {name}, which returns {describe(output)}; accepted: "
            f"{', '.join(fitting)}"
        )
    return given or fitting[0]


def compared(task: str, before: Any, after: Any, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return sums (b,) for each example, by name; ``n`` is what they are divided by.

    - ``language``: per predicted token, ``ce`` of the text, ``kl`` = KL(before || after) in nats,
      ``agreement`` of the likeliest token; ``loss`` is the rise of ``ce``.
    - ``classes``: ``kl`` and ``agreement``; ``loss`` is ``kl``.
    - ``embedding``: ``cosine`` of the hidden states' means over tokens; ``loss`` is 1 - cosine.

    >>> sums = compared("classes", torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]]), {})
    >>> {name: float(value) for name, value in sums.items()}
    {'kl': 0.0, 'agreement': 1.0, 'loss': 0.0, 'n': 1.0}
    """
    if task == "embedding":
        cosine = torch.cosine_similarity(_pooled(before, arguments), _pooled(after, arguments), dim=1)
        return {"cosine": cosine, "loss": 1 - cosine, "n": torch.ones_like(cosine)}
    old, new = _logits(before), _logits(after)
    if task == "classes":
        kl, agreement = _differences(old, new)
        return {"kl": kl, "agreement": agreement, "loss": kl, "n": torch.ones_like(kl)}
    ids, mask = arguments["input_ids"], arguments["attention_mask"].bool()
    rows = []
    for one in range(len(ids)):  # one after the other: the vocabulary is large
        at = mask[one, 1:].nonzero()[:, 0]
        kl, agreement = _differences(old[one, at], new[one, at])
        losses = [nn.functional.cross_entropy(x[one, at].float(), ids[one, at + 1], reduction="sum")
                  for x in (old, new)]  # fmt: skip
        n = torch.tensor(float(len(at)), device=kl.device)
        rows.append(torch.stack([losses[1], kl.sum(), agreement.sum(), losses[1] - losses[0], n]))
    return dict(zip(("ce", "kl", "agreement", "loss", "n"), torch.stack(rows, dim=1), strict=True))


def ratio(sums: np.ndarray, counts: np.ndarray) -> Estimate:
    """Return ``sum(sums) / sum(counts)`` over examples (m,), and its standard error (Cochran, eq. 6.13).

    >>> ratio(np.array([1.0, 2.0, 3.0]), np.ones(3)).value
    2.0
    """
    m, total = len(sums), float(counts.sum())
    if not total:
        return Estimate(math.nan)
    value = float(sums.sum()) / total
    rest = sums - value * counts
    error = math.sqrt(m / (m - 1) * float(rest @ rest)) / abs(total) if m > 1 else None
    return Estimate(value, error)


def _differences(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(old || new) and the agreement of the largest logit, for logits (..., v)."""
    p, q = old.float().log_softmax(dim=-1), new.float().log_softmax(dim=-1)
    return divergence(p, q), (p.argmax(dim=-1) == q.argmax(dim=-1)).float()


def _logits(output: Any) -> Tensor:
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the network returns {describe(output)}, not logits; choose another suite.behaviour.task"
        )
    return logits


def _pooled(output: Any, arguments: Mapping[str, Any]) -> Tensor:
    """Return the mean hidden state over the tokens of each text (b, d); images over all positions."""
    states = first_tensor(output)
    if states is None:
        raise ValueError(f"the network returns {describe(output)}, no hidden states to embed")
    states = states.float()
    if states.ndim == 3 and arguments.get("attention_mask") is not None:
        mask = arguments["attention_mask"].to(states)[..., None]
        return (states * mask).sum(dim=1) / mask.sum(dim=1)
    return (
        states.flatten(2).mean(dim=2)
        if states.ndim == 4
        else states.mean(dim=1)
        if states.ndim == 3
        else states
    )
