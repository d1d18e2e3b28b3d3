"""The documentation's code runs, and every public name is documented."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ctde_kit

ROOT = Path(__file__).parents[1]
PAGES = [
    "docs/shapes.md",
    "docs/tutorials/run.md",
    "docs/tutorials/compose.md",
    "docs/tutorials/drop_in.md",
    "docs/competition.md",
    "docs/communication.md",
    "docs/critics.md",
]


def blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(python|bash)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    namespace: dict = {"__name__": "page"}
    found = blocks(page)
    assert found
    for language, code in found:
        if language == "bash":
            result = subprocess.run(
                ["bash", "-ec", code],
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, f"{code}\n{result.stderr}"
        else:
            exec(compile(code, page, "exec"), namespace)


def modules() -> list[str]:
    return [info.name for info in pkgutil.walk_packages(ctde_kit.__path__, "ctde_kit.") if ".conf" not in info.name]


def test_every_public_name_is_documented() -> None:
    missing = []
    for name in modules():
        module = importlib.import_module(name)
        if not module.__doc__ and not name.endswith("__init__"):
            missing.append(name)
        for key, value in vars(module).items():
            if key.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value):
                missing.append(f"{name}.{key}")
    assert not missing


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"<!-- test command -->\n```bash\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert command is not None
    assert command.group(1).endswith("-m pytest")
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()
