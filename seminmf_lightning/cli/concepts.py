"""Print the strongest concepts of a text or an image.

Each token of a text with its strongest concepts: number, code, label; of an image the concepts, with the
patch where they are strongest.  Below, what these concepts promote: the tokens or classes that the network's
head reads in them.  The network is that of the run's harvest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from seminmf_lightning import SemiNMF
from seminmf_lightning.cli.build import plain, quieten, say
from seminmf_lightning.cli.network import (
    check_network,
    lens_lines,
    lens_through,
    open_network,
    printable,
    titled,
)
from seminmf_lightning.cli.run_directory import folder_of, make_room, next_commands, shown_path, write_json
from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.explain.page import LENS_FILE
from seminmf_lightning.harvest import Harvester
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.io.labels import digest_of
from seminmf_lightning.network.of_run import with_head
from seminmf_lightning.network.reading import Example, GivenTexts, read_concepts, strongest

EXAMPLES = (
    'run=RUN text="The cat sat on the mat."',
    "run=RUN image=photo.png top=10",
    "run=RUN inputs=text inputs.path=texts.jsonl output=concepts.json",
    'run=RUN text="The cat sat on the mat." lens=true',
)
READ = {"text": 'text="..."', "image": "image=photo.png", "inputs": "inputs=text inputs.path=<files>"}


def main(cfg: DictConfig) -> dict[str, Any]:
    """Print the concepts, and return what the file ``output`` holds."""
    quieten()
    whole_number("top", cfg.top, 1)
    inputs = chosen_inputs(cfg)
    if cfg.output is not None:
        make_room(Path(cfg.output), cfg.run, cfg.overwrite)
    dictionary, harvester = open_network(cfg, inputs, with_head)
    check_network(cfg, dictionary, harvester)
    largest = torch.zeros(1, len(dictionary.get_dictionary()))  # by size, with their sign
    examples = []
    for example in read_concepts(harvester, dictionary):
        if example.skipped is not None:
            say(f"skipped {printable(example.skipped)}")
        elif len(example.codes):
            show(example, harvester.loaded.feed.images, cfg.top, dictionary.labels)
            both = torch.cat([largest, example.codes])
            largest = both.gather(0, both.abs().argmax(dim=0, keepdim=True))
            examples.append(as_plain(example, cfg.top) if cfg.output is not None else {})
        else:
            say(f"skipped {printable(example.name)}: no token or patch")
    if not examples:
        raise ValueError("nothing was read: no example has a token or patch")
    concepts = [concept for concept, _ in strongest(largest, cfg.top)[0]]
    lens = show_lens(harvester, dictionary, concepts, cfg)
    described = {str(one): {"label": dictionary.labels.get(one)} | lens.get(one, {}) for one in concepts}
    where = {"run": str(cfg.run), "layer": str(harvester.layers[0])}
    result = where | {"concepts": described, "examples": examples}
    if cfg.output is not None:
        write_json(Path(cfg.output), result)
        say(f"concepts  {cfg.output}")
    run = f"run={shown_path(cfg.run)}"
    if concepts and lens and not harvester.loaded.feed.images:  # a head of tokens: most such networks write
        code = float(largest[0, concepts[0]])
        say(*next_commands(f'steer {run} concept={concepts[0]} strength={code:.3g} prompt="..."'))
    elif not dictionary.labels:
        say(*next_commands(f"report {run}"))
    return result


def chosen_inputs(cfg: DictConfig) -> Inputs | Mapping[str, Any]:
    """Return what ``text``, ``image`` or ``inputs`` names; a ValueError unless it is one of them."""
    given = [key for key in READ if cfg[key] is not None]
    if len(given) != 1:
        found = f"got {' and '.join(f'{key}=' for key in given)}" if given else "got none"
        raise ValueError(f"give one of {', '.join(READ.values())}; {found}")
    if cfg.text is not None:
        if not str(cfg.text).strip():
            raise ValueError('text= is empty; give text="..."')
        return GivenTexts([str(cfg.text)])
    return {"name": "images", "path": str(cfg.image)} if cfg.image is not None else plain(cfg.inputs)


def show(example: Example, image: bool, top: int, labels: Mapping[int, str]) -> None:
    """Print each token with its concepts, or each concept of an image with its patch."""
    say(printable(example.name))
    tokens = example.tokens()
    if image:
        strength, at = example.codes.abs().max(dim=0)
        for concept, _ in strongest(strength[None], top)[0]:
            code, here = float(example.codes[at[concept], concept]), (example.codes[:, concept] != 0).sum()
            where = f"at {tokens[at[concept]]:18} in {here:,} of {len(tokens):,}"
            say(f"  {code:+10.3g}  {where}  {titled(concept, labels)}")
        return
    shown = [printable(token).replace("\n", "\\n") for token in tokens]
    width = min(20, max(map(len, shown)))
    for token, pairs in zip(shown, strongest(example.codes, top), strict=True):
        words = ", ".join(f"{titled(concept, labels)} ({code:+.3g})" for concept, code in pairs)
        say(f"  {token:{width}}  {words or '-'}")


def as_plain(example: Example, top: int) -> dict[str, Any]:
    """Return the tokens or patches of an example with their concepts, as JSON keeps them."""
    columns = {name: column.tolist() for name, column in example.origin.items() if name != "example"}
    places = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = zip(example.tokens(), places, strongest(example.codes, top), strict=True)
    return {
        "name": example.name,
        "tokens": [
            {"token": token} | place | {"concepts": [{"concept": one, "code": code} for one, code in pairs]}
            for token, place, pairs in rows
        ],
    }


def show_lens(
    harvester: Harvester, dictionary: SemiNMF, concepts: list[int], cfg: DictConfig
) -> dict[int, dict[str, list[str]]]:
    """Print what concepts promote, and return it; with ``cfg.lens`` write it for all beside the run."""
    try:
        lens_of = lens_through(harvester, dictionary)
    except ValueError as error:
        if cfg.lens:
            raise ValueError(f"lens=true: {error}") from error
        say(f"promotes: not known, {error}")
        return {}
    lens = lens_of(concepts)
    for concept, found in lens.items():
        say(f"concept {titled(concept, dictionary.labels)}", *(f"  {line}" for line in lens_lines(found)))
    if cfg.lens:
        file = folder_of(cfg.run) / LENS_FILE
        D = dictionary.get_dictionary()
        every = {str(concept): found for concept, found in lens_of(list(range(len(D)))).items()}
        write_json(file, {"dictionary": digest_of(D), "concepts": every})
        say(f"lens  {file}")
    return lens
