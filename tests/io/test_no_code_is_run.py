"""The package runs nothing that it reads, and its dependencies are bounded and audited."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

SOURCES = sorted([*(ROOT / "seminmf_lightning").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])


def forbidden(call: ast.Call) -> str | None:
    """Why a call may not be in the source."""
    name, options = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in ("eval", "exec", "compile", "__import__") or re.fullmatch(
        r"(pickle|dill|marshal|shelve|joblib)\.\w+", name
    ):
        return name
    if name in ("os.system", "os.popen") or options.get("shell") == "True":
        return "a shell"
    if re.fullmatch(r"yaml\.(\w*_)?load(_all)?", name) and "safe" not in name:
        return "yaml.load"
    if name == "torch.load" and options.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name == "np.load" and options.get("allow_pickle") != "False":
        return "np.load without allow_pickle=False"
    if options.get("trust_remote_code", "False") != "False":
        return "trust_remote_code"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_it_reads(path: Path) -> None:
    calls = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    assert [(call.lineno, why) for call in calls if (why := forbidden(call))] == []


@pytest.mark.parametrize(
    "call",
    [
        "eval(x)",
        "pickle.loads(x)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "yaml.load(f)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(call: str) -> None:
    (found,) = [node for node in ast.walk(ast.parse(call)) if isinstance(node, ast.Call)]
    assert forbidden(found)


def requirements() -> Iterator[tuple[str, str]]:
    """Each requirement of ``pyproject.toml`` but our own extras, with the remark on its line."""
    listing = False
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.")[0].splitlines():
        code, _, remark = line.partition("  #")
        if re.match(r"[\w-]+ = \[", code) and not code.startswith(
            ("authors", "classifiers", "keywords", "license", "maintainers")
        ):
            listing = True
        for requirement in re.findall(r'"([^"]+)"', code.partition(" = ")[2] or code) if listing else ():
            if not requirement.startswith("seminmf-lightning["):
                yield requirement, remark.strip()
        listing = listing and "]" not in re.sub(r'"[^"]*"', "", code)


def test_every_dependency_has_a_bound_and_a_reason() -> None:
    found = list(requirements())
    assert len(found) > 35 and any(name.startswith("torch>=") for name, _ in found)
    assert [name for name, _ in found if not re.match(r"[\w.-]+(\[[\w,]+\])?(>=|==)\d", name)] == []
    assert [name for name, remark in found if not remark] == []


@pytest.mark.parametrize(
    ("report", "status", "words"),
    [
        (None, 0, "not reached"),
        ({"dependencies": [{"name": "a", "skip_reason": "not found"}]}, 0, "not reached"),
        (
            {"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"skip_reason": "x"}]},
            0,
            "in 1 packages, 1 not",
        ),
        (
            {
                "dependencies": [
                    {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
                ]
            },
            1,
            "a 1: CVE-1",
        ),
    ],
)
def test_the_audit_tells_unreached_from_clean(report: Any, status: int, words: str, tmp_path: Path) -> None:
    tool = tmp_path / "pip-audit"  # one that writes this report, in place of the one that asks the service
    writing = (
        "exit 3"
        if report is None
        else f"while [ $# -gt 1 ]; do shift; done; cat > \"$1\" <<'E'\n{json.dumps(report)}\nE"
    )
    tool.write_text(f"#!/bin/sh\n{writing}\n")
    tool.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / ".ci" / "audit")], env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status and words in done.stdout
