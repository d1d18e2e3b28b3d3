"""The names of the arguments that a scenario reads, found in its source."""

from __future__ import annotations

import abc
import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vmas.simulator.scenario import BaseScenario

# Functions that take all arguments and read none of them.
_HARMLESS = ("check_kwargs_consumed",)
# Bases of every scenario.
_PLAIN = (object, abc.ABC)


def argument_names(scenario_class: type[BaseScenario]) -> frozenset[str] | None:
    """Names that ``make_world`` takes, or that any method looks up in the arguments; ``None`` where that is not known.

    They are not known where there is no source, or where all arguments are passed on to anything but a method.

    >>> from vmas.scenarios import load
    >>> sorted(argument_names(load("dropout.py").Scenario))
    ['energy_coeff', 'n_agents', 'start_same_point']
    """
    others = [cls for cls in scenario_class.__mro__ if not _is_scenario(cls) and cls not in (BaseScenario, *_PLAIN)]
    sources = [_class_source(cls) for cls in scenario_class.__mro__ if _is_scenario(cls)]
    found = [source for source in sources if source is not None]
    return None if others or len(found) < len(sources) else _names_in(tuple(found))


# VMAS makes a new class at every load, so that only the source can be the key.
@functools.lru_cache
def _names_in(sources: tuple[_Source, ...]) -> frozenset[str] | None:
    """The names of the arguments that classes with these sources read together."""
    trees = [_syntax_tree(source) for source in sources]
    nodes = [node for tree in trees if tree is not None for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    if None in trees or "make_world" not in [function.name for function in functions]:
        return None
    takes_bag = {function.name for function in functions if _bags(function)}
    names: set[str] = set()
    handed_on = {"make_world"}
    for function in functions:
        found = _reads(function, {function.name for function in functions}, takes_bag)
        if found is None:
            return None
        names |= found.names
        handed_on |= found.handed_on
    for function in functions:
        if function.name in handed_on:
            arguments = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]}
            names |= arguments - _bags(function)
    return frozenset(names - {"self", "batch_dim", "device"})


class _Source(NamedTuple):
    """Where a class is written: the file's text, its name, and a line within it; no name where it has no methods."""

    text: str
    name: str
    line: int


class _Found(NamedTuple):
    """What a function does with all arguments: which ones it looks up, and to which methods it passes all of them."""

    names: set[str]
    handed_on: set[str]


def _is_scenario(cls: type) -> bool:
    return issubclass(cls, BaseScenario) and cls is not BaseScenario


def _class_source(cls: type) -> _Source | None:
    """The class's source, found through a method: VMAS loads scenarios as modules without a name."""
    methods = [value for value in vars(cls).values() if hasattr(value, "__code__")]
    if not methods:
        return _Source("", "", 0)
    code = methods[0].__code__
    try:
        return _Source(Path(code.co_filename).read_text(), cls.__name__, code.co_firstlineno)
    except (OSError, ValueError):
        return None


def _syntax_tree(source: _Source) -> ast.AST | None:
    """The class's syntax tree; of several classes of one name, the one that has the line."""
    if not source.name:
        return ast.Module([], [])
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError):
        return None
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == source.name]
    return next((node for node in classes if node.lineno <= source.line <= (node.end_lineno or source.line)), None)


def _bags(function: ast.FunctionDef) -> set[str]:
    """The names under which a function has all arguments: its ``**kwargs``, and parameters with ``kwargs`` in them."""
    rest = {function.args.kwarg.arg} if function.args.kwarg is not None else set()
    return rest | {argument.arg for argument in function.args.args if "kwargs" in argument.arg}


def _reads(function: ast.FunctionDef, methods: set[str], takes_bag: set[str]) -> _Found | None:
    """What a function does with all arguments; ``None`` where it uses them in a way that is not understood here."""
    bags, found = _bags(function), _Found(set(), set())
    accounted: set[ast.expr] = set()
    for node in ast.walk(function):
        for bag, constant in _lookups(node):
            if isinstance(bag, ast.Name) and bag.id in bags and isinstance(constant, ast.Constant):
                accounted.add(bag)
                found.names.update({constant.value} if isinstance(constant.value, str) else ())
        if isinstance(node, ast.Call):
            method, whole = _own_method(node), {keyword.value for keyword in node.keywords if keyword.arg is None}
            if method in methods:
                accounted |= whole | (set(node.args) if method in takes_bag else set())
                found.handed_on.update({method} if whole else ())
            elif getattr(node.func, "attr", None) in _HARMLESS:
                accounted |= {*node.args, *whole}
    uses = {node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id in bags}
    return None if uses - accounted else found


def _own_method(call: ast.Call) -> str | None:
    """The name in ``self.NAME(...)`` and ``super().NAME(...)``."""
    if not isinstance(call.func, ast.Attribute):
        return None
    owner = call.func.value.func if isinstance(call.func.value, ast.Call) else call.func.value
    return call.func.attr if isinstance(owner, ast.Name) and owner.id in ("self", "super") else None


def _lookups(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """``kwargs`` and ``"x"`` in ``kwargs.get("x")``, ``kwargs.pop("x")``, ``kwargs["x"]`` and ``"x" in kwargs``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
        yield from ((node.func.value, name) for name in node.args[:1])
    elif isinstance(node, ast.Subscript):
        yield node.value, node.slice
    elif isinstance(node, ast.Compare):
        yield from ((right, node.left) for right in node.comparators)
