"""``ctde NAME ...``, and for recipes ``ctde-NAME ...``, too: every console script of the kit."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands import catalog
from ctde_kit.recipes.commands.application import guarded
from ctde_kit.recipes.commands.benchmark import benchmark
from ctde_kit.recipes.commands.compare import compare
from ctde_kit.recipes.commands.critic_layouts import critic_layouts
from ctde_kit.recipes.commands.cross_play import cross_play
from ctde_kit.recipes.commands.describe import describe
from ctde_kit.recipes.commands.doctor import doctor
from ctde_kit.recipes.commands.evaluate import evaluate
from ctde_kit.recipes.commands.export import export
from ctde_kit.recipes.commands.lasting_output import lasting_output
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.report import report
from ctde_kit.recipes.commands.spinning import limit_spinning
from ctde_kit.recipes.commands.train import train
from ctde_kit.recipes.commands.watch import watch

Command = Callable[[list[str]], None]
LISTS: dict[str, Command] = {"recipes": catalog.recipes, "tasks": catalog.tasks, "parts": catalog.parts}
COMMANDS: dict[str, Command] = {
    "benchmark": benchmark,
    "report": report,
    "evaluate": evaluate,
    "watch": watch,
    "export": export,
    "compare": compare,
    "doctor": doctor,
    "describe": describe,
    "cross-play": cross_play,
    "critic-layouts": critic_layouts,
}


def main() -> None:
    """Do what the command line says; the program's name, or its first argument, is the command."""
    limit_spinning()
    with lasting_output():
        _run_command()


def _run_command() -> None:
    program, arguments = Path(sys.argv[0]).stem, sys.argv[1:]
    if program.startswith("ctde-"):
        name = program.removeprefix("ctde-")
    else:
        name, *arguments = arguments or ["--help"]
    if name in RECIPES:
        guarded(f"ctde-{name}", lambda given: train(name, given), arguments, f"; go on with ctde-{name} resume=RUN_DIR")
    elif name in ("--help", "-h"):
        catalog.overview()
    elif name == "--version":
        catalog.versions()
    else:
        guarded(_program(name), _command(name), arguments)


def _program(name: str) -> str:
    """What errors call a command that is no recipe."""
    return f"ctde {name}" if name in {**LISTS, **COMMANDS} else "ctde"


def _command(name: str) -> Command:
    known = {**LISTS, **COMMANDS}
    if name in known:
        return known[name]

    def unknown(arguments: list[str]) -> None:
        if name == "resume":
            raise UserError("resume: there is no such command; go on with `ctde RECIPE resume=RUN_DIR`")
        close = difflib.get_close_matches(name, [*RECIPES, *known], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`ctde` lists what there is"
        raise UserError(f"{name}: there is no such command; {hint}")

    return unknown


if __name__ == "__main__":
    main()
