"""Console command ``seminmf``: find the subcommand, start Hydra, and report errors without a traceback.

Before the first line is on the screen only the standard library and a YAML reader are imported.
"""

from __future__ import annotations

import difflib
import functools
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from seminmf_lightning import __version__
from seminmf_lightning.cli.commands import CONFIGS, Command, find_commands
from seminmf_lightning.cli.help import extra_of, help_of, overview
from seminmf_lightning.cli.launch import is_first_process
from seminmf_lightning.core.commands import command as typed_command

BUGS = (AssertionError, AttributeError, LookupError, NameError, RecursionError, ArithmeticError)
"""Exceptions that no input should cause: their traceback is shown."""
TAKE_A_VALUE = (
    "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p",
)  # fmt: skip
"""Hydra's options that are followed by a value."""
ONLY_PRINT = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
"""Hydra's options that start no job."""


def main() -> None:
    """Run the subcommand named on the command line; without one, list them."""
    commands, arguments = find_commands(), sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview(commands))
    elif arguments[0] == "--version":
        print(f"seminmf {__version__}")
    elif arguments[0] in ("-sc", "--shell-completion"):
        _complete(commands, arguments)
    elif (name := arguments[0].replace("_", "-")) in commands:
        run(name, arguments[1:])
    else:
        near = difflib.get_close_matches(name, commands, 1, 0.4)
        hint = f"did you mean 'seminmf {near[0]}'? " if near else ""
        _fail(f"'seminmf {arguments[0]}' is no command; {hint}The commands are {', '.join(commands)}", 2)


def run(name: str, arguments: Sequence[str] | None = None) -> None:
    """Run one command with the arguments after its name (default: those of the process).

    An error ends the process with its message alone; ``--debug`` or HYDRA_FULL_ERROR=1 shows the traceback.
    """
    command = find_commands()[name]
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments) and command.config is not None:
        print(help_of(command, arguments, _option(arguments, "--config-dir", "-cd")))
        return
    debug = "--debug" in arguments or os.environ.get("HYDRA_FULL_ERROR") == "1"
    arguments = [argument for argument in arguments if argument != "--debug"]
    if sys.stderr.isatty() and is_first_process() and not set(arguments) & set(ONLY_PRINT):
        print(f"seminmf {__version__} {name}: starting", file=sys.stderr, flush=True)
    try:
        task = import_module(command.module).main
        if command.config is None:
            task(arguments)
        else:
            _run_hydra(command, task, arguments)
    except Exception as error:
        if debug:
            raise
        error = unwrapped(error)
        if isinstance(error, BUGS):
            traceback.print_exception(error)
        message = message_of(error)
        if isinstance(error, ImportError) and command.config is not None:
            extra = extra_of(command.config, arguments)
            message += f"; it needs: {extra}" if extra and extra not in message else ""
        elif isinstance(error, OSError) and not _writable(Path.cwd()):
            message = f"cannot write to {Path.cwd()}: run the command in a folder of yours ({message})"
        _fail(message)


def unwrapped(error: Exception) -> Exception:
    """Return the cause of Hydra's instantiation errors."""
    while type(error).__name__ == "InstantiationException" and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def message_of(error: Exception) -> str:
    """Return an exception's message; for Hydra's errors, with that of their cause."""
    text = str(error).strip() or type(error).__name__
    if type(error).__module__.startswith("hydra.") and error.__cause__ is not None:
        text = f"{text}\n{error.__cause__}"
    return text


def _writable(folder: Path) -> bool:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _fail(message: str, status: int = 1) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def _option(arguments: Sequence[str], *names: str) -> str | None:
    """Return the value of an option, given as ``--name value`` or ``--name=value``."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else following
    return None


def _split(config: Path, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split Hydra's options from overrides; ``--key`` becomes ``key=true`` if that is false by default.

    Raises:
        ValueError: a key that takes a value is written as an option.
    """
    root = yaml.safe_load(config.read_text(encoding="utf-8"))
    flags = {f"--{key.replace('_', '-')}": f"{key}=true" for key, value in root.items() if value is False}
    options: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_option = argument.startswith("-") and argument not in flags
        is_value = bool(options) and options[-1] in TAKE_A_VALUE
        key = argument.partition("=")[0].removeprefix("--").replace("-", "_")
        if is_option and not is_value and argument.startswith("--") and key in root:
            raise ValueError(f"{argument}: settings are written without dashes: {key}=...")
        (options if is_option or is_value else overrides).append(flags.get(argument, argument))
    return options, overrides


def _run_hydra(command: Command, task: Callable[[Any], Any], arguments: Sequence[str]) -> None:
    """Let Hydra compose the config and call ``task`` with it, once or for every job of a sweep.

    Hydra parses ``sys.argv`` without the subcommand.  While a job runs, ``sys.argv`` is again what the user
    typed: Lightning starts the other processes of ``strategy=ddp`` with it.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from seminmf_lightning.cli.overrides import check, quote_path

    assert command.config is not None
    package = ".".join(["seminmf_lightning", "configs", *command.config.parent.relative_to(CONFIGS).parts])
    process, typed = os.getpid(), sys.argv
    options, overrides = _split(command.config, arguments)
    overrides = [quote_path(text) for text in overrides]

    errors: list[Exception] = []
    sweeps: set[str] = set()

    @functools.wraps(task)
    def job(cfg: Any) -> Any:
        if os.getpid() != process:  # a job that submitit started
            return task(cfg)
        hydra_config = HydraConfig.get()
        try:
            with _command_line(typed, None):
                return task(cfg)
        except Exception as error:
            if hydra_config.mode == RunMode.MULTIRUN:
                raise
            errors.append(error)  # raised below: Hydra would print a line of its own
        finally:
            if hydra_config.mode == RunMode.MULTIRUN:
                sweeps.add(hydra_config.sweep.dir)

    if is_first_process() and not set(options) & set(ONLY_PRINT):
        check(package, command.config.stem, overrides, _option(options, "--config-dir", "-cd"))
    # Hydra needs options before overrides.
    try:
        with _command_line([sys.argv[0], *options, *overrides], "1"):
            config_path, config_name = f"pkg://{package}", command.config.stem
            hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(job)()
    finally:
        if sweeps and is_first_process():
            print(f"next  {typed_command('compare')} {shlex.join(sorted(sweeps))}", flush=True)
    if errors:
        raise errors[0]


@contextmanager
def _command_line(arguments: list[str], full_error: str | None) -> Iterator[None]:
    """Set ``sys.argv`` and $HYDRA_FULL_ERROR within the context."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")

    def put(arguments: list[str], full_error: str | None) -> None:
        sys.argv = arguments
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error

    put(arguments, full_error)
    try:
        yield
    finally:
        put(*before)


def _complete(commands: dict[str, Command], arguments: list[str]) -> None:
    """Complete for the shell: names of subcommands, then Hydra's proposals for the subcommand."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    query = any(argument.startswith("query=") for argument in arguments)
    if query and len(words) < 3:
        print(" ".join(name for name in commands if name.startswith(words[-1])))
        return
    command = commands.get(words[1] if query else "train")
    if command is not None and command.config is not None:
        if query:
            os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
        _run_hydra(command, lambda cfg: None, arguments)


if __name__ == "__main__":
    main()
