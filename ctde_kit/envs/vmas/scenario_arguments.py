"""Scenarios by name, and a check of their arguments before they are built: VMAS only warns, or ignores them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from vmas.scenarios import load
from vmas.simulator.scenario import BaseScenario

from ctde_kit.envs.vmas.argument_names import argument_names
from ctde_kit.errors import UserError


def load_scenario(scenario: str | BaseScenario | type[BaseScenario]) -> BaseScenario:
    """The scenario object for a name such as ``navigation`` or ``mpe/simple_tag``, or of a class; objects pass through.

    Raises:
        UserError: where VMAS ships no scenario of that name, for a class that is not a scenario's, and for an object
            whose world is built.
    """
    if isinstance(scenario, type) and issubclass(scenario, BaseScenario):
        return scenario()
    if isinstance(scenario, BaseScenario):
        if scenario._world is not None:
            raise UserError(
                f"scenario: expected an object without a world, found a {type(scenario).__name__} that has one, so it "
                "is another env's; give its class, or a new object"
            )
        return scenario
    if not isinstance(scenario, str):
        raise UserError(f"scenario: expected a name, or a class or object of VMAS's BaseScenario, found {scenario!r}")
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


def check_arguments(scenario: BaseScenario, arguments: Iterable[str]) -> None:
    """Raise ``UserError`` for an argument whose name the scenario's source never mentions.

    Nothing is checked where the source cannot be found (a class from a notebook), or where it hands all arguments on.
    """
    known = argument_names(type(scenario))
    for name in arguments:
        if known is not None and name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it reads {', '.join(sorted(known)) or 'none'}"
            raise UserError(f"scenario argument {name!r} is never read by {scenario_name(scenario)}: {hint}")


def scenario_name(scenario: BaseScenario) -> str:
    """The name of a scenario's class, or of the file of a class that is just called Scenario."""
    name = type(scenario).__name__
    return Path(type(scenario).make_world.__code__.co_filename).stem if name == "Scenario" else name
