"""Build the data of a run from plain settings, such as ``{"name": "npy", "path": "rows.npy"}``."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from seminmf_lightning.core.checks import known_names, unknown_name
from seminmf_lightning.core.discovery import available, build
from seminmf_lightning.data.datamodule import ActivationDataModule
from seminmf_lightning.data.live import HarvestDataModule
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.harvest.recipe import HarvestRecipe

DataModule = ActivationDataModule | HarvestDataModule

WITHOUT_SOURCE = {HarvestDataModule.name: HarvestDataModule}
"""Data modules that make their own rows, by the name that ``data=`` takes."""

NAMES_OF_0_1_0 = {
    "DemoRows": "demo", "HarvestDataModule": "harvest", "HarvestedRows": "shards", "NpyRows": "npy",
    "ObjectStoreRows": "object_store", "PlantedRows": "synthetic", "SafetensorsRows": "safetensors",
}  # fmt: skip
"""Class names in the ``_target_`` of runs and YAML files of 0.1.0, and the ``name`` that replaces each."""


def build_data(spec: Mapping[str, Any]) -> DataModule:
    """Make a data module from its name and settings.

    Settings of :class:`ActivationDataModule` go to it, the others to the source that ``name`` chooses.

    Raises:
        TypeError: a setting that neither of them has.
        ValueError: an unknown name, or a required setting that is missing.

    >>> build_data({"name": "synthetic", "rows": 100, "features": 8, "val_fraction": 0}).features
    8
    """
    spec = named(spec)
    if (kind := _kinds().get(spec["name"])) is None:
        raise ValueError(unknown_name("source of data", spec["name"], list(_kinds())))
    _check_names(spec, kind)
    settings = {key: value for key, value in spec.items() if key != "name"}
    parameters = inspect.signature(kind).parameters.values()
    required = [
        one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    ]
    if missing := [key for key in required if key not in settings]:
        raise ValueError(f"data={spec['name']} needs data.{missing[0]}=...")
    if not issubclass(kind, Source):
        return kind(**settings)
    stream = {key: settings.pop(key) for key in _stream_keys() if key in settings}
    return ActivationDataModule(build(Source, {"name": spec["name"], **settings}), **stream)


def absolute(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose local ``path`` and ``groups`` are absolute: a run finds its rows from any folder.

    >>> absolute({"name": "npy", "path": "s3://bucket/a.npy"})["path"]
    's3://bucket/a.npy'
    """

    def located(path: Any) -> Any:
        if isinstance(path, list):
            return [located(one) for one in path]
        return os.path.abspath(path) if isinstance(path, str) and "://" not in path else path

    return dict(settings) | {key: located(settings[key]) for key in ("path", "groups") if key in settings}


def named(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with a ``name``; a ``_target_`` of version 0.1.0 is translated.

    Raises:
        ValueError: neither, or a ``_target_`` that is not a class of ours.
    """
    settings = {key: value for key, value in spec.items() if key != "_target_"}
    if "_target_" in spec:
        package, _, kind = str(spec["_target_"]).rpartition(".")
        if not package.startswith("seminmf_lightning.data") or kind not in NAMES_OF_0_1_0:
            raise ValueError(
                f"data._target_={spec['_target_']!r}: data is chosen by data.name, one of "
                f"{', '.join(_kinds())}; a package adds its own by an entry point of the group "
                "seminmf_lightning.sources"
            )
        settings["name"] = NAMES_OF_0_1_0[kind]
        warnings.warn(
            f"data._target_: {spec['_target_']} is now data.name: {settings['name']}; "
            "the old key is read until the next release",
            FutureWarning,
            stacklevel=3,
        )
    if not isinstance(settings.get("name"), str):
        raise ValueError(f"data.name must be one of {', '.join(_kinds())}; got {settings.get('name')!r}")
    return settings


def same_rows(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide which rows there are: not how they are split, ordered and batched.

    >>> same_rows({"name": "npy", "path": "a.npy", "batch_size": 64, "seed": 1})
    {'name': 'npy', 'path': 'a.npy'}
    """
    return {key: value for key, value in settings.items() if key not in _stream_keys()}


def settings_from_file(file: object, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the data settings in a run's file: the name of a source and plain values, never code.

    Raises:
        ValueError: anything else; the message names the file and the setting.
    """
    advice = "give data=... data.path=..."
    if spec is None:
        raise ValueError(f"{file} does not say which data it was trained on: {advice}")
    try:
        spec = named(spec)
        kind = available(Source).get(spec["name"])
        if kind is None:
            raise ValueError(unknown_name("source of rows", spec["name"], list(available(Source))))
        _check_names(spec, kind)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: the data of this run is not read, {error}: {advice}") from error
    nested = [one.name for one in fields(kind) if one.default_factory is dict]  # type: ignore[arg-type]
    for key, value in spec.items():
        parts = list(value.values()) if isinstance(value, Mapping) and key in nested else value
        if not all(map(_is_plain, parts if isinstance(parts, list) else [parts])):
            raise ValueError(
                f"{file} has {str(value)[:80]!r} for data.{key}, which is not read; accepted are text, "
                f"numbers and lists of them: {advice}"
            )
    return spec


def _kinds() -> dict[str, Any]:
    return dict(sorted({**available(Source), **WITHOUT_SOURCE}.items()))


def _stream_keys() -> list[str]:
    return [name for name in inspect.signature(ActivationDataModule).parameters if name != "source"]


def _check_names(spec: Mapping[str, Any], kind: type[Any]) -> None:
    """Raise TypeError for a setting that the source or data module does not have."""
    parameters = inspect.signature(kind).parameters.values()
    own = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
    more = _stream_keys() if issubclass(kind, Source) else [one.name for one in fields(HarvestRecipe)]
    known_names(f"setting of data={spec['name']}:", [key for key in spec if key != "name"], [*own, *more])


def _is_plain(value: Any) -> bool:
    """Whether a value is a text without interpolation, a number, true, false or null."""
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)
