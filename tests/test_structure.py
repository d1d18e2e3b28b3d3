"""The house's plan: no import circles, no two files or classes of one name, faces that say what they give."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FACES = ["ctde_kit", "ctde_kit.recipes", "ctde_kit.recipes.wiring"]


def modules() -> dict[str, Path]:
    """Every module of the installed package by its name; ``recipes/`` is ``ctde_kit.recipes``."""
    found = {}
    for package, folder in (("ctde_kit", ROOT / "ctde_kit"), ("ctde_kit.recipes", ROOT / "recipes")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """What a module imports, inside functions and under ``TYPE_CHECKING``, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in known else node.module


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_module_imports_in_a_circle() -> None:
    edges = graph()
    assert len(edges) > 150
    assert circles(edges) == []


def test_no_two_files_or_classes_have_one_name() -> None:
    files, classes = defaultdict(list), defaultdict(list)
    for name, path in modules().items():
        if path.name != "__init__.py" and path.parent != ROOT / "recipes":
            files[path.name].append(name)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(name)
    assert {file: names for file, names in files.items() if len(names) > 1} == {}
    assert {cls: names for cls, names in classes.items() if len(names) > 1} == {}


def test_the_top_of_recipes_holds_the_algorithms() -> None:
    top = {path.name for path in (ROOT / "recipes").iterdir() if path.name != "__pycache__"}
    packages = {"commands", "conf", "configs", "studies", "wiring"}
    assert top == {
        "__init__.py",
        "mappo.py",
        "happo.py",
        "qmix.py",
        "maddpg.py",
        "masac.py",
        "coma.py",
        "pqn.py",
        *packages,
    }


@pytest.mark.parametrize("face", FACES)
def test_a_lazy_face_gives_what_it_lists(face: str) -> None:
    module = importlib.import_module(face)
    typed = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "ctde_kit.lazy")
        for alias in node.names
    }
    listed = set(module.__all__) - {"__version__"}
    assert listed == typed
    for name in listed:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        module.nothing  # noqa: B018


def test_the_front_door_is_small() -> None:
    import ctde_kit

    packages = {"collectors", "data", "distributed", "envs", "graph", "modules", "objectives", "testing", "training"}
    assert packages <= set(ctde_kit.__all__)
    assert 25 <= len(set(ctde_kit.__all__) - packages - {"__version__"}) <= 32


def test_nothing_makes_one_hot_vectors_as_torch_does() -> None:
    """Torch's own reads the data, so what calls it is never compiled; ``ctde_kit.specs.one_hot`` does not."""
    found = [name for name, path in modules().items() if "functional.one_hot" in path.read_text()]
    assert found == []


@pytest.mark.parametrize(
    "arguments",
    [["ctde"], ["ctde", "tasks"], ["ctde", "parts"], ["ctde-mappo", "--help"], ["ctde-qmix", "gamma=3"], ["ctde", "x"]],
    ids=" ".join,
)
def test_lists_help_and_refusals_load_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys, ctde_kit, ctde_kit.recipes.commands.main as commands\n"
        f"sys.argv = {arguments}\n"
        "try:\n    commands.main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
