"""Print what a language model writes with a concept steered.

The concept's code is raised by ``strength`` at every token.  Beside each continuation: the KL of the
distribution of the next token, KL(untouched || steered) in nats, and the perplexity of the continuation under
the untouched model.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from seminmf_lightning.cli.build import plain, quieten, say
from seminmf_lightning.cli.network import (
    check_network,
    lens_lines,
    lens_through,
    open_network,
    printable,
    titled,
)
from seminmf_lightning.cli.run_directory import make_room, write_json
from seminmf_lightning.core.checks import real_number
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.harvest.window_limit import window_limit
from seminmf_lightning.network.attach import attach
from seminmf_lightning.network.edits import concept_numbers
from seminmf_lightning.network.reading import GivenTexts
from seminmf_lightning.network.steering import Writing, cannot_write, refuse_unless_causal, write_steered

EXAMPLES = (
    'run=RUN concept=17 strength=4 prompt="The cat sat on"',
    "run=RUN concept=17 'strength=[-4,2,4,8]' prompt=\"The cat sat on\" max_tokens=60",
    'run=RUN concept=17 strength=4 prompt="The cat sat on" sample=true temperature=0.8 seed=3',
)


def main(cfg: DictConfig) -> dict[str, Any]:
    """Print the continuations, and return what the file ``output`` holds."""
    quieten()
    strengths = chosen_strengths(plain(cfg.strength))
    if not str(cfg.prompt).strip():
        raise ValueError('prompt= is empty; give prompt="..."')
    writing = Writing(cfg.max_tokens, cfg.sample, cfg.temperature, cfg.seed)
    if cfg.output is not None:
        make_room(Path(cfg.output), cfg.run, cfg.overwrite)
    saved, prompt = load_dictionary(cfg.run), GivenTexts([str(cfg.prompt)])
    (concept,) = concept_numbers([cfg.concept], len(saved.D))
    with refused_by_name(saved.config.get("network") if cfg.model is None else None):
        dictionary, harvester = open_network(cfg, prompt, as_language_model)
    network, tokenizer = harvester.loaded.network, harvester.loaded.feed.tokenizer  # type: ignore[attr-defined]
    ids = prompt_ids(tokenizer, prompt.texts[0]).to(harvester.device)
    refuse_too_long(ids.shape[1], cfg.max_tokens, window_limit(tokenizer, network))
    refuse_unless_causal(network, ids)
    check_network(cfg, dictionary, harvester)
    concepts = attach(network, str(harvester.layers[0]), dictionary, force=True)  # compared already
    lines = write_steered(concepts, concept, strengths, ids, writing)

    say(f"concept {titled(concept, dictionary.labels)}, layer {harvester.layers[0]}")
    lens: Mapping[str, list[str]] = {}
    try:
        lens = lens_through(harvester, dictionary)([concept])[concept]
        say(*(f"  {line}" for line in lens_lines(lens)))
    except ValueError as error:
        say(f"  promotes: not known, {error}")
    written = []
    for line in lines:
        text = tokenizer.decode(line.tokens, skip_special_tokens=True)
        name = f"strength {line.strength:g}, KL {line.kl:.3g} nats" if line.strength else "untouched"
        say(
            f"{name}, perplexity {line.perplexity:.3g}",
            textwrap.indent(printable(text), "  | ", lambda _: True),
        )
        written.append(
            {"strength": line.strength, "kl": line.kl, "perplexity": line.perplexity, "text": text}
        )
    result = {
        "run": str(cfg.run), "layer": str(harvester.layers[0]), "concept": concept,
        "label": dictionary.labels.get(concept), **lens, "prompt": prompt.texts[0], "written": written,
    }  # fmt: skip
    if cfg.output is not None:
        write_json(Path(cfg.output), result)
        say(f"steering  {cfg.output}")
    return result


def chosen_strengths(given: Any) -> list[float]:
    """Return the strengths of ``strength=4`` or ``strength=[2,4]``.

    >>> chosen_strengths([2, -4.0])
    [2.0, -4.0]
    """
    many = given if isinstance(given, list) else [given]
    strengths = [real_number("strength", one, -1e30, at_most=1e30) for one in many]
    if not strengths or 0 in strengths:
        raise ValueError("strength=0 changes nothing; give strength=4, or several: 'strength=[-4,4]'")
    return strengths


def prompt_ids(tokenizer: Any, prompt: str) -> Tensor:
    """Return the tokens (1, t) of a prompt; a ValueError if it is no text, or has none."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"prompt= is not valid text at character {error.start}; give it in UTF-8") from error
    ids: Tensor = tokenizer(prompt, return_tensors="pt")["input_ids"]
    if not ids.numel():
        raise ValueError(f"prompt={prompt!r} has no token in the model's vocabulary; give another")
    return ids


def as_language_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the harvest's model with its language head, and windows as long as it takes."""
    return dict(settings) | {"architecture": "AutoModelForCausalLM", "max_length": None}


@contextmanager
def refused_by_name(origin: Mapping[str, Any] | None) -> Iterator[None]:
    """Say what to do instead where the model of a run is none that writes text."""
    model = {} if origin is None else origin["model"]
    name = f"{model.get('architecture')} ({model.get('path', model.get('name'))})"
    if model and model.get("library") != "transformers":
        raise ValueError(cannot_write(name))
    try:
        yield
    except ValueError as error:
        if "for this kind of AutoModel" not in str(error):
            raise
        raise ValueError(cannot_write(name)) from error


def refuse_too_long(tokens: int, more: int, limit: int | None) -> None:
    """Raise ValueError if prompt and continuation are longer than the network takes."""
    if limit is not None and tokens + more > limit:
        raise ValueError(
            f"the prompt of {tokens} tokens and max_tokens={more} exceed the {limit} tokens that the model "
            "takes; shorten the prompt, or give a smaller max_tokens"
        )
