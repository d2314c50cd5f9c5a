"""Check overrides before Hydra runs anything: unknown keys, groups and choices are refused by name.

Hydra refuses unknown keys too, but proposes ``+key=value``, which makes a typo permanent.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from pydoc import locate
from typing import Any

from hydra import initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from seminmf_lightning.core.checks import unknown_name
from seminmf_lightning.core.commands import command

PATH_KEYS = ("run", "against", "path", "output", "store", "ckpt_path", "dir", "tasks", "sae", "image")
TEXT_KEYS = ("text", "prompt")
"""Root keys whose values are texts as typed, with commas and brackets."""
WORDS = {bool: "true or false", int: "a whole number", float: "a number"}
HIDDEN = ("_target_", "run_dir", "hydra")
NEAR = 0.8
"""Similarity above which a new key in an open mapping is taken for a typo of a known one."""


def check(package: str, name: str, overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Raise ValueError for the first override that is not what config ``name`` of ``package`` accepts.

    Raises:
        ValueError: an unknown key (appended with ``+`` or not), group or choice, with the nearest known name;
            a key that must be given.
        TypeError: a word where the default is a number, true or false.
    """
    parsed = [_parse(text) for text in overrides]
    search = (f"hydra.searchpath=[file://{Path(config_dir).absolute()}]",) if config_dir else ()
    loader = _loader(package)

    def choices(group: str) -> list[str]:
        return loader.get_group_options(group, ObjectType.CONFIG, name, list(search))

    cfg = _compose(package, name, search)
    chosen = [one for one in parsed if _is_group(one, choices)]
    if chosen:
        known = {group.partition("@")[0] for group in cfg.hydra.runtime.choices}
        for override in chosen:
            _check_choice(override, choices(override.key_or_group), known)
        # Keys depend on the choices, and an experiment may make some itself.
        try:
            cfg = _compose(package, name, (*search, *(text for one in chosen for text in _first(one))))
        except MissingConfigException as error:  # a plugin of Hydra that is not installed, such as a launcher
            raise ModuleNotFoundError(str(error).partition("\n")[0]) from error
    groups = sorted(group for group in cfg.hydra.runtime.choices if "/" not in group and group not in cfg)
    keys = [override for override in parsed if override not in chosen]
    typed = [key.key_or_group for key in keys]
    for override in keys:
        _check_key(override, cfg, groups, typed)
    for key in _required(cfg):
        if not any(key == one or key.startswith(f"{one}.") for one in typed):
            raise ValueError(
                f"{key} must be given: {key}=...; `{command(name.replace('_', '-'))} --help` has examples"
            )


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, equals, _ = text.partition("=")
        if not equals and not text.startswith("~"):
            raise ValueError(f"{text!r} is no key=value; settings are written key=value") from error
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{text}: {reason}; a value with brackets, commas or quotes needs "
            f"quotes inside those of the shell: \"{key}='...'\""
        ) from error


def quote_path(text: str) -> str:
    """Quote a text, or a value that names a file or folder, which Hydra would read in its own way.

    >>> quote_path("l1_penalty=0.1"), quote_path("run=/"), quote_path("prompt=one, two")
    ('l1_penalty=0.1', 'run=/', "prompt='one, two'")
    """
    key, _, value = text.partition("=")
    if key in TEXT_KEYS and value:
        return text if _is_quoted(text) else f"{key}='{_escaped(value)}'".replace("${", r"\${")
    if key.rpartition(".")[2] not in PATH_KEYS or not value or not os.path.exists(value):
        return text
    with suppress(HydraException):
        override = OverridesParser.create().parse_override(text)
        if not override.is_sweep_override() and override.value() == value:
            return text
    return f"{key}='{_escaped(value)}'"


def _is_quoted(text: str) -> bool:
    """Whether a value stands in quotes of its own, inside those of the shell."""
    with suppress(HydraException):
        return isinstance(OverridesParser.create().parse_override(text)._value, QuotedString)
    return False


def _escaped(value: str) -> str:
    """Return a value as Hydra reads it between single quotes."""
    return re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (found[2] and r"\'"), value)


def _required(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of values that must be given."""
    for name in map(str, node):
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not (child._is_none() or child._is_interpolation()):
            yield from _required(child, f"{prefix}{name}.") if prefix or name != "hydra" else ()
        elif OmegaConf.is_missing(node, name):
            yield f"{prefix}{name}"


@lru_cache(maxsize=8)
def _loader(package: str) -> ConfigLoader:
    with initialize_config_module(package, version_base="1.3"):
        return GlobalHydra.instance().config_loader()


@lru_cache(maxsize=8)
def _compose(package: str, name: str, overrides: tuple[str, ...]) -> DictConfig:
    return _loader(package).load_configuration(name, list(overrides), RunMode.RUN)


def _is_group(override: Override, choices: Any) -> bool:
    key = override.key_or_group
    return "/" in key or ("." not in key and bool(choices(key)))


def _values(override: Override) -> Iterator[Any]:
    """Yield the given value, or each of a comma-separated sweep; nothing for a range or interval."""
    value = override.value() if not override.is_sweep_override() else override._value
    if isinstance(value, ChoiceSweep):
        for item in value.list:
            yield item.text if isinstance(item, QuotedString) else item
    elif not override.is_sweep_override():
        yield value


def _first(override: Override) -> list[str]:
    """Return the override with the first of its values, if these can be listed."""
    if override.is_delete():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={'null' if v is None else v}" for v in _values(override)][:1]


def _check_choice(override: Override, choices: list[str], groups: set[str]) -> None:
    """Refuse unknown groups, except nested ones, and choices without a file."""
    group = override.key_or_group
    if not choices or (group not in groups and not group.startswith(("harvest/", "hydra/"))):
        raise ValueError(f"{override.input_line}: {unknown_name('group', group, sorted(groups))}")
    for value in _values(override):
        for choice in value if isinstance(value, list) else [value]:
            if choice is None and not override.is_delete():
                raise ValueError(f"{override.input_line}: choose one of {', '.join(choices)}")
            if choice is not None and str(choice) not in choices:
                raise ValueError(
                    f"{override.input_line}: {unknown_name(f'choice of {group}:', str(choice), choices)}"
                )


def _check_key(override: Override, cfg: DictConfig, groups: list[str], typed: list[str]) -> None:
    """Follow the dotted key down the config and refuse an unknown part."""
    key, node, path = override.key_or_group, cfg, ""
    for depth, part in enumerate(key.split(".")):
        parent, path = path, f"{path}.{part}" if path else part
        if isinstance(node, ListConfig):
            return
        if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
            raise ValueError(f"{key}: {parent} has no keys; choose {parent}=... first")
        if part in list(node):  # `part in node` is false for a value that must be given
            target, node = node.get("_target_"), node._get_node(part)  # type: ignore[assignment]
            continue
        known = [str(name) for name in node if name not in HIDDEN] + (groups if depth == 0 else [])
        if depth and "_target_" in node:
            parameters = _parameters(node["_target_"])
            if part in parameters:
                return  # Hydra asks for a + if it is missing
            known += [name for name in parameters if name not in known]
        elif depth and _is_open(override, node, parent, path, known, typed):
            return
        if depth > 2 and path.startswith("hydra."):
            return
        where = f" of {parent}" if parent else ""
        raise ValueError(f"{override.input_line}: {unknown_name(f'key{where}:', part, known)}")
    _check_type(override, node, target, part)


def _parameters(target: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of what a ``_target_`` names; none if it does not exist."""
    made = locate(target)
    return inspect.signature(made).parameters if callable(made) else {}


def _is_open(
    override: Override, node: DictConfig, parent: str, path: str, known: list[str], typed: list[str]
) -> bool:
    """Whether a new key may be appended: an object with a ``_target_``, or an option of a plain mapping."""
    appended = override.is_add() or override.is_force_add()
    if parent.rpartition(".")[2] == "options":  # arguments of a function that this package does not know
        if not appended:
            raise ValueError(f"{override.input_line}: an option is appended with +: +{override.input_line}")
        return True
    if not appended or "name" in node:
        return False
    objects = [child for child in node.values() if OmegaConf.is_dict(child) and "_target_" in child]
    if objects or not len(node):
        return f"{path}._target_" in typed
    return parent != "hydra" and not get_close_matches(path.rpartition(".")[2], known, 1, NEAR)


def _check_type(override: Override, node: Any, target: str | None, part: str) -> None:
    """Refuse a word instead of a number, and a number instead of true or false."""
    kind = type(node._value()) if not isinstance(node, DictConfig | ListConfig) else None
    if kind not in WORDS or override.is_delete():
        return
    if target is not None:
        parameter = _parameters(target).get(part)
        if parameter is None or "str" in str(parameter.annotation):
            return
    accepted = {bool: (bool,), int: (int,), float: (int, float)}[kind]
    for value in _values(override):
        interpolated = isinstance(value, str) and "${" in value
        wrong = not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool)
        if value is not None and wrong and not interpolated:
            raise TypeError(f"{override.key_or_group} must be {WORDS[kind]}, got {value!r}")
