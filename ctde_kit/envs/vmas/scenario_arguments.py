"""Check a scenario's arguments before it is built: VMAS itself only warns, or ignores them."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path
from typing import Any

from vmas.scenarios import load
from vmas.simulator.scenario import BaseScenario

from ctde_kit.errors import UserError


def load_scenario(scenario: str | BaseScenario) -> BaseScenario:
    """The scenario object for a name such as ``navigation`` or ``mpe/simple_tag``; an object passes through.

    Raises:
        UserError: where VMAS ships no scenario of that name.
    """
    if isinstance(scenario, BaseScenario):
        return scenario
    name = scenario.rsplit("/", 1)[-1]
    try:
        return load(f"{name}.py").Scenario()
    except (AssertionError, FileNotFoundError, ValueError, AttributeError, ImportError) as error:
        close = difflib.get_close_matches(name, shipped_scenarios(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"VMAS ships {', '.join(shipped_scenarios())}"
        raise UserError(f"VMAS has no scenario {scenario!r}: {hint}") from error


def shipped_scenarios() -> list[str]:
    """The names of all scenarios that the installed VMAS ships.

    >>> from ctde_kit.envs.vmas import shipped_scenarios
    >>> "navigation" in shipped_scenarios()
    True
    """
    root = Path(load.__code__.co_filename).parent
    return sorted(path.stem for path in root.rglob("*.py") if path.stem != "__init__")


def check_arguments(scenario: BaseScenario, arguments: dict[str, Any]) -> None:
    """Raise ``UserError`` for an argument whose name the scenario's source never mentions."""
    known = _argument_names(type(scenario))
    for name in arguments:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it reads {', '.join(sorted(known))}"
            raise UserError(f"scenario argument {name!r} is never read by {_name(scenario)}: {hint}")


def _name(scenario: BaseScenario) -> str:
    return Path(type(scenario).make_world.__code__.co_filename).stem


def _argument_names(scenario_class: type) -> set[str]:
    """Names that ``make_world`` takes, or that any method looks up in its ``kwargs``."""
    names: set[str] = set()
    for cls in scenario_class.__mro__:
        if not issubclass(cls, BaseScenario) or cls is BaseScenario:
            continue
        for node in ast.walk(_class_source(cls)):
            if isinstance(node, ast.FunctionDef) and node.name == "make_world":
                names |= {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}
            names |= _lookups(node)
    return names - {"self", "batch_dim", "device"}


def _class_source(cls: type) -> ast.AST:
    """The class's syntax tree, found through a method: VMAS loads scenarios as modules without a name."""
    methods = [value for value in vars(cls).values() if hasattr(value, "__code__")]
    if not methods:
        return ast.Module([], [])
    tree = ast.parse(Path(methods[0].__code__.co_filename).read_text())
    return next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == cls.__name__)


def _lookups(node: ast.AST) -> set[str]:
    """``kwargs.get("x")``, ``kwargs.pop("x")``, ``kwargs["x"]``, ``"x" in kwargs``."""
    constants: list[ast.expr] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_kwargs(node.func.value):
        constants = node.args[:1]
    elif isinstance(node, ast.Subscript) and _is_kwargs(node.value):
        constants = [node.slice]
    elif isinstance(node, ast.Compare) and any(_is_kwargs(right) for right in node.comparators):
        constants = [node.left]
    return {c.value for c in constants if isinstance(c, ast.Constant) and isinstance(c.value, str)}


def _is_kwargs(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and "kwargs" in node.id
