"""The page "From and to SAELens" runs as typed; what needs sae-lens runs where that is installed."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import ROOT


def test_the_page_runs_as_typed(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page, ran = (ROOT / "docs" / "bridges.md").read_text(), []
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL):
        if language == "sh":
            for line in block.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "seminmf"
                command(*arguments)
        elif "sae_lens" in block and find_spec("sae_lens") is None:
            continue
        else:
            exec(block, {})
        ran.append(language)
    assert len(ran) >= 2 and ran[0] == "sh"
    assert (tmp_path / "outputs" / "bridge" / "saelens" / "exact" / "cfg.json").is_file()
