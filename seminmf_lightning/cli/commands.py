"""Find the commands: a command is a file of this folder that lists ``EXAMPLES`` beside its docstring.

Files are parsed, not imported: the list of commands and ``--help`` must not wait for PyTorch.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from seminmf_lightning import configs

CLI = Path(__file__).parent
CONFIGS = Path(configs.__path__[0])


@dataclass(frozen=True)
class Command:
    """One command: its docstring, and about three example command lines."""

    name: str
    docstring: str
    examples: tuple[str, ...]

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.docstring.partition("\n")[0]

    @property
    def module(self) -> str:
        """Name of the module that defines ``main``."""
        return f"seminmf_lightning.cli.{self.name.replace('-', '_')}"

    @cached_property
    def config(self) -> Path | None:
        """The YAML file of its root keys; its groups are the folders beside it.  None: no Hydra command."""
        stem = self.name.replace("-", "_")
        files = (CONFIGS / f"{stem}.yaml", CONFIGS / stem / f"{stem}.yaml")
        return next((file for file in files if file.is_file()), None)


def find_commands() -> dict[str, Command]:
    """Every command by its name.

    >>> print(find_commands()["train"].summary)
    Train a dictionary of concepts.
    """
    commands = {}
    for file in sorted(CLI.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLES":
                name = file.stem.replace("_", "-")
                commands[name] = Command(name, ast.get_docstring(tree) or "", ast.literal_eval(node.value))
    return commands
