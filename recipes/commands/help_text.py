"""What ``--help`` prints of each option: its value now, and what it means in the words of its class's docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.configs.checks import field_types

WIDTH = 120
# Where the meaning of an option begins.
COLUMN = 34


def option_lines(options: Options, values: Mapping[str, Any]) -> list[str]:
    """A line ``NAME: VALUE  # MEANING`` for each option; the lines are YAML.

    Args:
        options: of the command, with what is chosen in them.
        values: of the options, nested.
    """
    return list(_lines(options, values, options.config, ""))


def _lines(options: Options, values: Mapping[str, Any], config: type | None, path: str) -> Iterator[str]:
    meanings = {} if config is None else documented(config)
    indent = "  " * (path.count(".") + bool(path))
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        nested = isinstance(value, dict) and bool(value)
        shown = f"{indent}{name}:" if nested else f"{indent}{name}: {_flow(value)}"
        yield from _commented(shown, meanings.get(name, ""))
        if nested:
            declared = None if config is None else field_types(config).get(name)
            is_config = isinstance(declared, type) and dataclasses.is_dataclass(declared)
            yield from _lines(options, value, options.classes.get(here, declared if is_config else None), here)


def _flow(value: object) -> str:
    """A value on one line, as YAML and as the command line takes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _commented(shown: str, meaning: str) -> Iterator[str]:
    if not meaning:
        yield shown
        return
    column = max(COLUMN, len(shown) + 2)
    first, *rest = textwrap.wrap(meaning, max(WIDTH - column - 2, 40))
    yield f"{shown:{column}}# {first}"
    yield from (f"{'':{column}}# {line}" for line in rest)


@cache
def documented(config: type) -> dict[str, str]:
    """What each option of a configuration means: the ``Args`` in the docstrings of its class and of the class's bases.

    >>> from ctde_kit.recipes import EvaluationConfig
    >>> documented(EvaluationConfig)["episodes"]
    'how many each time.'
    """
    meanings: dict[str, str] = {}
    for base in reversed(config.__mro__):
        doc = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        arguments = re.search(r"^Args:\n((?: {4}.*\n?)+)", doc, re.MULTILINE)
        for entry in re.finditer(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments[1] if arguments else "", re.MULTILINE):
            meanings[entry[1]] = " ".join(entry[2].split()).replace("``", "`")
    return meanings
