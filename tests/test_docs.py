"""The documentation's code runs, and every public name is documented."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from unittest import mock

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


def run_command(line: str, cwd: Path) -> None:
    """One line of a shell: our own commands in this process, which has imported everything already."""
    program, *arguments = shlex.split(line)
    scripts = entry_points(group="console_scripts", name=program)
    if program.startswith("ctde") and scripts:
        status = None
        with mock.patch.object(sys, "argv", [program, *arguments]), mock.patch.dict(os.environ):
            try:
                next(iter(scripts)).load()()
            except SystemExit as stop:
                status = stop.code
        assert not status, f"{line}: exit code {status}"
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    result = subprocess.run(
        ["bash", "-ec", line], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{line}\n{result.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "page"}
    found = blocks(page)
    assert found
    for language, code in found:
        if language == "bash":
            for line in code.splitlines():
                run_command(line, tmp_path)
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


def test_ci_runs_every_gate_of_nox() -> None:
    gates = re.search(r"sessions = \[(.*?), \"tests\"\]", (ROOT / "noxfile.py").read_text())
    assert gates is not None
    assert f"-s {' '.join(re.findall(r'[a-z]+', gates.group(1)))}\n" in (ROOT / ".ci" / "run").read_text()
