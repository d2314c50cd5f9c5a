"""Write ``--help``: groups with their choices, keys with their comments, examples."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from seminmf_lightning.cli.commands import CONFIGS, Command
from seminmf_lightning.core.commands import command as typed_command

KEY = re.compile(r"(?P<key>[a-z_0-9]+):(?:\s+(?P<value>[^#\s][^#]*?))?(?:\s+#\s*(?P<comment>.*))?")
MORE_COMMENT = re.compile(r"\s+#\s*(?P<comment>.*)")
PACKAGE = re.compile(r"# @package ([a-z][a-z_0-9.]*)\n")
INSTALL = re.compile(r"pip install 'seminmf-lightning\[\w+\]'")
HIDDEN = ("defaults", "hydra", "run_dir", "_target_", "name")
WIDTH = 80
OPTIONS = """Options
  -m, --multirun        run every combination of the comma-separated values
  --config-dir FOLDER   also search for configs in this folder
  --cfg job             print the composed config, run nothing
  --debug               show the traceback of an error
  -sc install=bash      shell completion: eval "$(seminmf -sc install=bash)"
"""


def overview(commands: dict[str, Command]) -> str:
    """Return one line per command."""
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in commands.items()]
    return "\n".join(
        [
            "Dictionaries of concepts from neural activations, by semi-nonnegative matrix factorisation;",
            "nonnegative=codes, both or none chooses other signs.",
            "",
            "Usage: seminmf COMMAND [key=value ...]        seminmf COMMAND --help",
            "",
            *lines,
            "",
            'seminmf --version; shell completion: eval "$(seminmf -sc install=bash)"',
        ]
    )


def help_of(command: Command, arguments: Sequence[str] = (), config_dir: str | None = None) -> str:
    """Return all that a command accepts, with the keys of the groups that ``arguments`` choose."""
    typed = typed_command(command.name)
    parts = [command.docstring.strip(), "", f"Usage: {typed} [key=value ...]", ""]
    if command.config is not None:
        folders = [*folders_of(command.config), *([Path(config_dir)] if config_dir else [])]
        groups = choices_of(command.config, folders)
        width = max(map(len, groups), default=0)
        parts.append("Groups (group=choice; the default comes first)")
        parts += [_hanging(f"  {name:{width}}  ", " | ".join(names)) for name, names in groups.items()]
        parts += ["", "Keys (key=value)", *_keys(command.config, "")]
        chosen = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        for group in groups.keys() & chosen.keys():
            file = next((f for d in folders if (f := d / group / f"{chosen[group]}.yaml").is_file()), None)
            if file is not None:
                package = PACKAGE.match(file.read_text(encoding="utf-8"))
                prefix = package[1] if package else group
                parts += ["", f"Keys of {group}={chosen[group]}", *_keys(file, f"{prefix}.")]
        if groups:
            first = next(iter(groups))
            parts += ["", f"Keys of a choice: {typed} {first}={groups[first][0]} --help", "", OPTIONS]
    parts += ["Examples", *(f"  {typed} {example}" for example in command.examples)]
    return "\n".join(parts)


def choices_of(config: Path, folders: Iterable[Path]) -> dict[str, list[str]]:
    """Return the choices of each group in the defaults list of ``config``, the default first."""
    groups = {}
    for entry in yaml.safe_load(config.read_text(encoding="utf-8"))["defaults"]:
        for group, default in entry.items() if isinstance(entry, dict) else ():
            if group.startswith("override "):
                continue
            files = [file for folder in folders for file in (folder / group).glob("*.yaml")]
            names = sorted({file.stem for file in files if not file.stem.startswith("_")} - {default})
            groups[group] = [str(default or "null"), *names]
    return groups


def folders_of(config: Path) -> list[Path]:
    """Return the folder of ``config`` and those of this package in its search path."""
    hydra = yaml.safe_load(config.read_text(encoding="utf-8")).get("hydra", {})
    packages = [path.removeprefix("pkg://seminmf_lightning.configs.") for path in hydra.get("searchpath", ())]
    return [config.parent, *(CONFIGS.joinpath(*package.split(".")) for package in packages)]


def extra_of(config: Path, arguments: Sequence[str]) -> str | None:
    """Return the pip command in the file of the first choice among ``arguments`` that needs an extra."""
    for argument in arguments:
        group, _, choice = argument.lstrip("+").partition("=")
        for folder in folders_of(config):
            file = folder / group.partition("@")[0] / f"{choice}.yaml"
            if file.is_file() and (match := INSTALL.search(file.read_text(encoding="utf-8"))):
                return match[0]
    return None


def _keys(config: Path, prefix: str) -> list[str]:
    """``key=default`` and comment of every key at the root of a YAML file and of the files it extends."""
    text = config.read_text(encoding="utf-8")
    lines = []
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(entry, str) and (parent := config.with_name(f"{entry}.yaml")).is_file():
            lines += _keys(parent, prefix)
    entries: list[list[str]] = []
    for line in text.splitlines():
        if match := KEY.fullmatch(line):
            entries.append([match["key"], match["value"] or "", match["comment"] or ""])
        elif (match := MORE_COMMENT.fullmatch(line)) and entries:
            entries[-1][2] += f" {match['comment']}"
    for key, value, comment in entries:
        if key not in HIDDEN:
            lines.append(_hanging(f"  {f'{prefix}{key}={value}':30}  ", comment))
    return lines


def _hanging(label: str, text: str) -> str:
    """Return ``label`` and ``text``, with ``text`` wrapped and indented below its start."""
    folded = textwrap.wrap(text, WIDTH - len(label)) if len(label) < WIDTH - 20 else [text]
    return (label + f"\n{' ' * len(label)}".join(folded or [""])).rstrip()
