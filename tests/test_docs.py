"""The documentation's code runs, and every public name is documented."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

import ctde_kit
from tests.test_public_names import EXTRAS

ROOT = Path(__file__).parents[1]
PAGES = [
    "docs/shapes.md",
    "docs/tutorials/run.md",
    "docs/tutorials/compose.md",
    "docs/tutorials/drop_in.md",
    pytest.param("docs/tutorials/own_environment.md", marks=pytest.mark.slow),
    pytest.param("docs/competition.md", marks=pytest.mark.slow),
    "docs/communication.md",
    "docs/critics.md",
    "docs/doctor.md",
    "docs/normalization.md",
    "docs/scale_out.md",
    pytest.param("docs/policies.md", marks=pytest.mark.slow),
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


# Curves are drawn in tests of their own.
@pytest.mark.usefixtures("no_curves")
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
            # A block that begins with the name of a file is that file, too.
            name = re.match(r"# (\w+\.py)\n", code)
            if name is not None:
                (tmp_path / name[1]).write_text(code)
            exec(compile(code, page, "exec"), namespace)


def modules() -> list[str]:
    return [info.name for info in pkgutil.walk_packages(ctde_kit.__path__, "ctde_kit.") if ".conf" not in info.name]


def test_every_public_name_is_documented() -> None:
    missing = []
    for name in modules():
        if name in EXTRAS and importlib.util.find_spec(EXTRAS[name]) is None:
            continue
        module = importlib.import_module(name)
        if not module.__doc__ and not name.endswith("__init__"):
            missing.append(name)
        for key, value in vars(module).items():
            if key.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value):
                missing.append(f"{name}.{key}")
    assert not missing


def all_pages() -> list[str]:
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]
    return sorted(str(page.relative_to(ROOT)) for page in pages)


def names_in_code(page: str) -> set[str]:
    """Full names of what the page's python blocks import from the kit, or reach through an imported package of it."""
    names, packages = set(), {}
    trees = [ast.parse(code) for language, code in blocks(page) if language == "python"]
    for node in [node for tree in trees for node in ast.walk(tree)]:
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("ctde_kit."):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            kits = [alias for alias in node.names if f"{alias.name}.".startswith("ctde_kit.")]
            packages |= {alias.asname or alias.name: alias.name for alias in kits}
            names |= {alias.name for alias in kits}
    for node in [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]:
        root, _, rest = ast.unparse(node).partition(".")
        if root in packages:
            names.add(f"{packages[root]}.{rest}")
    return {name for name in names if re.fullmatch(r"[\w.]+", name)}


def names_in_text(page: str) -> set[str]:
    """Full names of the kit in a page's inline code and in the directives that fill the reference."""
    text = (ROOT / page).read_text()
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) + re.findall(r"^\.\. auto\w+:: (\S+)", text, re.MULTILINE)
    found = {name for code in inline for name in re.findall(r"(?<![\w./])(?:ctde_kit|ck)(?:\.\w+)+", code)}
    return {re.sub(r"^ck\.", "ctde_kit.", name) for name in found}


def is_public(name: str) -> bool:
    """Whether a name is in the list ``__all__`` of a package or module that has one, or is such a package."""
    face: ModuleType = ctde_kit
    for part in name.split(".")[1:]:
        if part in getattr(face, "__all__", ()):
            value = getattr(face, part)
            if not isinstance(value, ModuleType):
                return True
        else:
            try:
                value = importlib.import_module(f"{face.__name__}.{part}")
            except ImportError:
                return False
            if not hasattr(value, "__all__"):
                return False
        face = value
    return True


@pytest.mark.parametrize("page", all_pages())
def test_every_name_on_a_page_is_public(page: str) -> None:
    private = {name for name in names_in_code(page) | names_in_text(page) if not is_public(name)}
    assert not private, f"{page}: use names of ctde_kit, ctde_kit.recipes or a package's __all__"


def test_the_reference_lists_the_front_door() -> None:
    """Every name of the front door is in the first table; the packages' names follow from their own lists."""
    table = (ROOT / "docs/reference.md").read_text().split("## ")[1]
    assert set(re.findall(r"`ck\.(\w+)`", table)) == set(ctde_kit.__all__)


def test_the_readmes_python_runs() -> None:
    code = "\n".join(code for language, code in blocks("README.md") if language == "python")
    assert "total_frames=60_000" in code
    shorter = code.replace("total_frames=60_000", 'total_frames=600, frames_per_batch=600, epochs=1, compile="off"')
    exec(compile(shorter, "README.md", "exec"), {"__name__": "page"})


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"<!-- test command -->\n```bash\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert command is not None
    assert command.group(1).endswith("-m pytest")
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


def test_the_readmes_cpu_build_of_torch_is_one_that_pip_keeps() -> None:
    """A build outside the kit's range would be replaced by the default one."""
    needed = re.search(r'"(torch[^a-z"]*)"', (ROOT / "pyproject.toml").read_text())
    assert needed is not None
    assert f'pip install "{needed[1]}" --index-url' in (ROOT / "README.md").read_text()


def test_ci_runs_every_gate_of_nox() -> None:
    gates = re.search(r"sessions = \[(.*?), \"tests\"\]", (ROOT / "noxfile.py").read_text())
    assert gates is not None
    assert f"-s {' '.join(re.findall(r'[a-z]+', gates.group(1)))}\n" in (ROOT / ".ci" / "run").read_text()
