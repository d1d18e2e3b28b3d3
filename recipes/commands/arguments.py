"""Mistakes on a command line that hydra would take, or would answer in many lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.application import options_of
from ctde_kit.recipes.commands.schemas import FOLDERS, SINGLE

FLAGS = (
    *("-m", "--multirun", "-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package"),
    *("-i", "--info", "-cd", "--config-dir", "-sc", "--shell-completion"),
)
BOOLEANS = ("true", "false", "yes", "no", "on", "off", "1", "0")


def check_arguments(program: str, arguments: list[str]) -> None:
    """Raise ``UserError`` for unknown flags, options that are removed, and a choice of nothing."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        folder = name.partition("@")[0]
        if argument.startswith("-") and name not in FLAGS:
            raise UserError(f"{argument}: there is no such flag; options are NAME=VALUE, `{program} --help` lists them")
        if argument.startswith("+") and not name.startswith("+opponent@"):
            raise UserError(f"{argument}: options need no plus sign; `{program} --help` lists them")
        if argument.startswith("~"):
            raise UserError(f"{argument}: an option cannot be removed; give it a value, or leave it out")
        if value == "null" and folder in {*FOLDERS.values(), *SINGLE}:
            raise UserError(f"{argument}: expected one of {', '.join(options_of(folder))}")


def check_booleans(config: Any, overrides: Iterable[str]) -> None:
    """Raise ``UserError`` where something else than true or false was given for an option that is one of them."""
    for override in overrides:
        name, _, value = override.lstrip("+").partition("=")
        chosen: Any = config
        for part in name.split("."):
            chosen = chosen.get(part) if isinstance(chosen, dict) else getattr(chosen, part, None)
        if isinstance(chosen, bool) and not name.startswith("task.params.") and value.lower() not in BOOLEANS:
            raise UserError(f"{name}={value}: expected true or false")
