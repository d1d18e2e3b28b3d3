"""What an environment raises while it is built, in one line that names the arguments it was given."""

from __future__ import annotations

import ast
import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ctde_kit.errors import UserError, one_line
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.checks import find_misfit, shown


class _Place(NamedTuple):
    """A line of a traceback."""

    filename: str
    line: int
    text: str


@contextlib.contextmanager
def naming_params(task: str, params: JsonObject, defaults: Callable[[], Mapping[str, object]] = dict) -> Iterator[None]:
    """Turn whatever an environment raises while it is built into a ``UserError`` that names its arguments.

    The error names those that the exception, or a line that it passed through, mentions; else all of them. One whose
    value has another type than the environment's own is named alone.

    Args:
        task: its name.
        params: the arguments that it is given.
        defaults: gives the environment's own values of its arguments, as far as they are known.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(_message(task, params, defaults, error)) from error


def defaults_in(source: Path) -> dict[str, object]:
    """The plain values in ``kwargs.pop("NAME", VALUE)`` and ``kwargs.get("NAME", VALUE)`` of a file, the first of each.

    >>> from vmas.scenarios import navigation
    >>> defaults_in(Path(navigation.__file__))["n_agents"]
    4
    """
    try:
        tree = ast.parse(source.read_text())
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("kwargs.get", "kwargs.pop")
            and len(node.args) == 2
        ):
            with contextlib.suppress(ValueError):
                name, value = map(ast.literal_eval, node.args)
                found.setdefault(str(name), value)
    return found


def _message(task: str, params: JsonObject, defaults: Callable[[], Mapping[str, object]], error: Exception) -> str:
    places = _places(error)
    named = _mentioned(params, str(error))
    place = places[-1]
    if not named:
        place = next((one for one in reversed(places) if _mentioned(params, one.text)), place)
        named = _mentioned(params, place.text) or [*params]
    said = one_line(error, 300)
    reason = f" ({type(error).__name__}: {said})" if said else ""
    look = f"look at {place.filename}, line {place.line}, and at what the environment needs"
    if not named:
        return f"{task} does not build{reason}; {look}"
    for name, own in _own_values(defaults).items():
        # An argument whose own value is a whole number may take any, unless that is what the environment refuses.
        kind = float if type(own) is int and not isinstance(error, TypeError) else type(own)
        misfit = find_misfit(params[name], kind) if name in named and kind in (bool, int, float, str) else None
        if misfit is not None:
            return (
                f"task.params.{name}={shown(misfit.value)}: expected {misfit.expected}, as {task}'s own value "
                f"{shown(own)}; give another value"
            )
    given = ", ".join(f"task.params.{name}={shown(params[name])}" for name in named)
    another = "give another value" if len(named) == 1 else "give other values"
    return f"{task} does not build with {given}{reason}: {another}, or {look}"


def _own_values(defaults: Callable[[], Mapping[str, object]]) -> Mapping[str, object]:
    try:
        return defaults()
    except Exception:  # what kept the environment from being built may keep its source from being found
        return {}


def _mentioned(params: JsonObject, text: str) -> list[str]:
    return [name for name in params if re.search(rf"\b{re.escape(name)}\b", text)]


def _places(error: Exception) -> list[_Place]:
    """The lines that the error passed through, the one that raised it last, in this process or in a worker's."""
    found = [_Place(one.filename, one.lineno or 0, one.line or "") for one in traceback.extract_tb(error.__traceback__)]
    for note in getattr(error, "__notes__", []):
        lines = re.findall(r'File "(.+)", line (\d+).*\n(?: {4}(.*))?', note)
        found += [_Place(filename, int(line), text) for filename, line, text in lines]
    return found
