"""Open the network of a run, for the commands that look inside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig

from seminmf_lightning import SemiNMF
from seminmf_lightning.cli.build import choose_device, plain
from seminmf_lightning.harvest import Harvester, HarvestRecipe
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.network.logit_lens import find_head, lens_texts, logit_lens
from seminmf_lightning.network.of_run import check_network_of_run, layer_of_run, model_of_run

Settings = Mapping[str, Any]
LensOf = Callable[[list[int]], dict[int, dict[str, list[str]]]]


def open_network(
    cfg: DictConfig, inputs: Inputs | Settings, choose: Callable[[Settings], Settings]
) -> tuple[SemiNMF, Harvester]:
    """Return the dictionary of ``cfg.run``, and the network that it was learned from, ready for ``inputs``.

    Args:
        choose: turns the settings of the harvest's model into those to load; not asked where ``cfg.model`` is
            given.

    Raises:
        ValueError: the network is not known, or lacks the layer.
    """
    device = choose_device(cfg.device)
    dictionary = SemiNMF.load(cfg.run, device)
    origin = dictionary.network
    model = plain(cfg.model) if cfg.model is not None else choose(model_of_run(origin, cfg.run))
    recipe = HarvestRecipe(model, inputs, tokens=cfg.get("tokens", "no_special"), check_rows=False)
    network = recipe.loaded.network
    layer = layer_of_run(network, origin, cfg.layer, cfg.run, "layer")
    recipe.layers = str(layer)
    return dictionary, recipe.harvester(device)


def check_network(cfg: DictConfig, dictionary: SemiNMF, harvester: Harvester) -> None:
    """Raise a ValueError for a network that the dictionary was not learned from, unless ``cfg.force``."""
    if not cfg.force:
        check_network_of_run(dictionary.network, cfg.run, harvester, cfg.model is not None)


def lens_through(harvester: Harvester, dictionary: SemiNMF) -> LensOf:
    """Return a function that gives the promoted and suppressed tokens or classes of concepts.

    Raises:
        ValueError: nothing can be seen through the head; the message says why.
    """
    loaded, (layer,) = harvester.loaded, harvester.layers
    items = next(
        (read.items[:1] for read in harvester.read(range(len(harvester.inputs))) if read.items), None
    )
    if items is None:
        raise ValueError("no example can be read")
    head = find_head(loaded.network, layer, lambda: loaded.feed.call(loaded.network, items, harvester.device))
    name = namer(loaded.network, getattr(loaded.feed, "tokenizer", None))
    D = dictionary.get_dictionary()

    def lens_of(concepts: list[int]) -> dict[int, dict[str, list[str]]]:
        return dict(zip(concepts, lens_texts(logit_lens(D[concepts], head), name), strict=True))

    return lens_of


def namer(network: Any, tokenizer: Any) -> Callable[[int], str]:
    """Return the name of a token, or else of a class, by its number."""
    if tokenizer is not None and network.get_output_embeddings() is not None:
        return lambda number: tokenizer.decode([number])
    labels = getattr(getattr(network, "config", None), "id2label", None) or {}
    return lambda number: str(labels.get(number, number))


def lens_lines(lens: Mapping[str, list[str]]) -> list[str]:
    """Return the two lines that show a lens.

    >>> lens_lines({"promotes": [" cat", "dog"], "suppresses": []})
    ['promotes: " cat" "dog"']
    """
    quoted = {kind: " ".join(json.dumps(one, ensure_ascii=False) for one in lens[kind]) for kind in lens}
    return [f"{kind}: {printable(words)}" for kind, words in quoted.items() if words]


def printable(text: str) -> str:
    """Return a text whose control characters cannot command the terminal.

    >>> printable("a" + chr(27) + "[2J" + chr(10) + "b")
    'a\ufffd[2J\\nb'
    """
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def titled(concept: int, labels: Mapping[int, str]) -> str:
    """Return the number of a concept with its label.

    >>> titled(17, {17: "a verb"}), titled(3, {})
    ('17 a verb', '3')
    """
    return printable(f"{concept} {labels[concept]}" if concept in labels else f"{concept}").replace("\n", " ")
