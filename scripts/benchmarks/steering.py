"""Does a concept, steered, raise the tokens that its logit lens names?

    python scripts/benchmarks/steering.py RUN MODEL

RUN was learned from the output of a layer of MODEL, a Llama of transformers.  The ten concepts are those
whose promoted tokens stand out most (z-score of their logits) among concepts that fire in one row of 1,000
and promote words: eight of the ten tokens occur in the texts.  (Without that the ten promote tokens that
the model has hardly ever seen, such as ``strugg``, which stand out in every direction.)  Concepts that share
half of their tokens with one before are left out.  Texts are ``pydoc_topics``: the first 60 those of the
run, the others give the prompts.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.discovery import build
from seminmf_lightning.data.build import build_data, settings_from_file
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.network.logit_lens import find_head, logit_lens

CONCEPTS, TOP, WORDS = 10, 10, 8
"""Concepts, tokens of each, and how many of these occur in the texts."""
PROMPTS, LENGTH, FIRST_TOPIC = 6, 16, 60
ROWS = 4096
"""Rows of the data that say how often a concept fires, and whose means are compared."""
STRONG = 20
"""Rows where a concept is strongest: one side of the difference in means."""


class Given(nn.Module):
    """Stands for the layers up to the dictionary's, and returns what they returned, moved."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden, self.move = hidden, torch.zeros(hidden.shape[-1])

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self.hidden + self.move


class Steered:
    """Next-token log-probabilities (prompts, v) of a model whose layer is moved by a direction (d,)."""

    def __init__(self, model: Any, layer: int, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        seen: list[Tensor] = []
        with (
            model.model.layers[layer].register_forward_hook(lambda *call: seen.append(call[2])),
            torch.no_grad(),
        ):
            model(ids, use_cache=False, logits_to_keep=1)
        self.given = Given(seen[0][0] if isinstance(seen[0], tuple) else seen[0])
        model.model.layers = nn.ModuleList([self.given, *model.model.layers[layer + 1 :]])
        self.before = self.log_p(torch.zeros(self.given.hidden.shape[-1]))

    @torch.no_grad()
    def log_p(self, move: Tensor) -> Tensor:
        self.given.move = move
        return (
            self.model(self.ids, use_cache=False, logits_to_keep=1).logits[:, -1].float().log_softmax(dim=-1)
        )

    def at_kl(self, direction: Tensor, kl: float, steps: int = 7) -> tuple[float, Tensor]:
        """Return the length of a unit direction that gives this mean KL(before || after), and what it gives.

        Secant steps of log KL on log length, which is a line of slope 2 for small lengths.
        """
        x, slope, last = math.log(20.0), 2.0, None
        for _ in range(steps):
            after = self.log_p(math.exp(x) * direction)
            y = math.log(float((self.before.exp() * (self.before - after)).sum(dim=1).mean()))
            if abs(y - math.log(kl)) < 0.02:
                break
            if last is not None and x != last[0]:
                slope = min(6.0, max(0.7, (y - last[1]) / (x - last[0])))
            last, x = (x, y), x + (math.log(kl) - y) / slope
        return math.exp(x), after


def rank(log_p: Tensor, tokens: Tensor) -> float:
    """Return the geometric mean over prompts and tokens of the rank, 1 for the likeliest."""
    ranks = (log_p[:, None, :] > log_p[:, tokens, None]).sum(dim=2) + 1
    return math.exp(float(ranks.double().log().mean()))


def readable(Z: Tensor, tokens: Tensor, scores: Tensor, seen: Tensor) -> list[int]:
    """Return concepts that fire and whose promoted tokens were seen and stand out, most of all first."""
    fires = ((Z > 0).float().mean(dim=0) >= 1e-3) & (Z.gt(0).sum(dim=0) >= STRONG)
    fires &= torch.isin(tokens, seen).sum(dim=1) >= WORDS
    chosen: list[int] = []
    for concept in scores.where(fires, -torch.inf).argsort(descending=True).tolist():
        mine = set(tokens[concept].tolist())
        if all(len(mine & set(tokens[other].tolist())) < TOP // 2 for other in chosen):
            chosen.append(concept)
        if len(chosen) == CONCEPTS:
            break
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("model")
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--kl", type=float, default=1.0)
    given = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model).eval()
    inputs = build(Inputs, {"name": "pydoc_topics"})
    topics = [tokenizer(inputs.read(number))["input_ids"] for number in range(FIRST_TOPIC)]
    seen = torch.tensor(sorted({token for one in topics for token in one}))
    prompts = [tokenizer(inputs.read(FIRST_TOPIC + n))["input_ids"] for n in range(3 * PROMPTS)]
    ids = torch.tensor([one[:LENGTH] for one in prompts if len(one) >= LENGTH][:PROMPTS])

    dictionary, saved = SemiNMF.load(given.run), load_dictionary(given.run)
    D = dictionary.get_dictionary()
    A = build_data(settings_from_file(given.run, saved.config["data"])).source.read_range(0, ROWS).float()
    Z = dictionary.encode(A)
    head = find_head(model, Layer(f"model.layers.{given.layer}"), lambda: model(ids))
    tokens = logit_lens(D, head, TOP).promotes
    W = model.lm_head.weight.float() * model.model.norm.weight.float()
    with torch.no_grad():
        logits = D @ W.T
        scores = (logits.topk(TOP, dim=1).values.mean(dim=1) - logits.mean(dim=1)) / logits.std(dim=1)

    steered = Steered(model, given.layer, ids)
    print(f"KL {given.kl:g} nats, {len(ids)} prompts of {LENGTH} tokens; rank of the concept's {TOP} tokens")
    print("| concept | promotes | strength | before | concept | random | difference in means |")
    table = []
    for concept in readable(Z, tokens, scores, seen):
        order = Z[:, concept].argsort(descending=True)
        difference = A[order[:STRONG]].mean(dim=0) - A[order[STRONG:]].mean(dim=0)
        ranks = [rank(steered.before, tokens[concept])]
        lengths = []
        for direction in (D[concept], torch.randn(D.shape[1]), difference):
            length, after = steered.at_kl(direction / direction.norm(), given.kl)
            lengths.append(length)
            ranks.append(rank(after, tokens[concept]))
        strength = lengths[0] / float(dictionary.normalizer.scale * D[concept].norm())
        table.append(ranks)
        words = " ".join(f"`{str(tokenizer.decode([one])).strip()}`" for one in tokens[concept][:5].tolist())
        print(
            f"| {concept} | {words} | {strength:.3g} | " + " | ".join(f"{one:,.0f}" for one in ranks) + " |",
            flush=True,
        )
    means = torch.tensor(table).log().mean(dim=0).exp().tolist()
    print("| geometric mean | | | " + " | ".join(f"{one:,.0f}" for one in means) + " |")


if __name__ == "__main__":
    main()
