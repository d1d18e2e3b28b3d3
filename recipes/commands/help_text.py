"""What ``--help`` prints of each option: its value now, and what it means in the words of its class's docstring."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.configs.checks import field_types
from ctde_kit.recipes.configs.option_docs import WIDTH, documented

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
