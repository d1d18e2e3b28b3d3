"""Three hundred generated bad command lines over all recipes: each is one line, exit code 2, and starts nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin
from unittest import mock

import pytest

from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.recipes import RECIPES
from tests.recipes.command_line import assert_one_line, call, call_here

# Of all that can be generated: those that hydra must compose, for they are out of range, and those that it need not.
COMPOSED, READ = 30, 270
HUGE = "99999999999999999999"
# Text that may be anything.
FREE = ("task.name", "task.env", "task.env_id", "logger.project")
# Numbers that may be negative.
SIGNED = ("actor.out_gain", "critic.network.out_gain")


def is_optional(declared: Any) -> bool:
    return NoneType in get_args(declared)


def kind_of(declared: Any) -> Any:
    kind = (
        next((part for part in get_args(declared) if part is not NoneType), declared)
        if is_optional(declared)
        else declared
    )
    return get_origin(kind) or kind


def misfits(name: str, declared: Any) -> Iterator[str]:
    """Values of another type."""
    values = {
        int: ["abc", "1.5", "true", HUGE, f"-{HUGE}", "nan", "[1]", "{a:1}", ""],
        float: ["abc", "true", "nan", "inf", "-inf", HUGE, "[1]", "{a:1}", ""],
        bool: ["2", "maybe", "1.5", "[true]", ""],
        list: ["3", "[a]", f"[{HUGE}]", "{a:1}", "[1.5]", "abc"],
        dict: ["3", "abc", "[1]"],
        str: ["[a]", "{a:1}"],
    }
    for value in values.get(kind_of(declared), [HUGE, "nan", "[inf]"]):
        yield f"{name}={value}"
    if not is_optional(declared) and declared is not Any:
        yield f"{name}=null"


def names(name: str) -> Iterator[str]:
    """Options that there are not, and forms that there are not."""
    yield f"{name[:-1]}=1"
    yield f"{name}x=1"
    if name != "task.params":
        yield f"{name}.foo=1"
    yield f"foo.{name}=1"
    yield f"~{name}"
    yield f"+{name}=1"
    yield f"--{name}=1"
    yield name


def choices(option: str) -> Iterator[str]:
    for value in ("", "foo", "1", "[mlp]", "mlpp"):
        yield f"{option}={value}"
    yield f"{option}@foo=mlp"
    yield f"network@{option}.foo=mlp"


def out_of_range(name: str, declared: Any) -> Iterator[str]:
    kind = kind_of(declared)
    if kind in (int, float) and name not in SIGNED:
        yield f"{name}=-1"
    if kind is str and name not in FREE:
        yield f"{name}=foo"


def sample(lines: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """So many of all recipes' lines, the same ones each time."""
    return random.Random(0).sample(lines, count)


def generated() -> list[tuple[str, str]]:
    read, composed = [], []
    for recipe in RECIPES:
        options = Options.of(RECIPES[recipe].config, recipe)
        for name, declared in options.types.items():
            if name in options.paths:
                continue
            read += [(recipe, line) for line in [*misfits(name, declared), *names(name)]]
            composed += [(recipe, line) for line in out_of_range(name, declared)]
        read += [(recipe, line) for option in options.choices for line in choices(option)]
    return sample(read, READ) + sample(composed, COMPOSED)


LINES = generated()
# The others are ``slow``.
AT_ONCE = set(sample(LINES, 120))


@pytest.mark.parametrize(
    ("recipe", "argument"),
    [pytest.param(*line, marks=[] if line in AT_ONCE else [pytest.mark.slow], id=" ".join(line)) for line in LINES],
)
def test_a_bad_command_line_is_one_line(recipe: str, argument: str, tmp_path: Path) -> None:
    from ctde_kit.recipes.commands import running

    with mock.patch.object(running, "start", side_effect=AssertionError("it was taken")):
        result = call_here(tmp_path, recipe, argument)
    option = argument.lstrip("+-~").partition("=")[0].removesuffix(".name")
    assert_one_line(result, option.rpartition(".")[2], program=f"ctde-{recipe}")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("recipe", "argument"), sample(LINES, 5))
def test_so_it_is_in_a_process_of_its_own(recipe: str, argument: str, tmp_path: Path) -> None:
    expected = call_here(tmp_path, recipe, argument)
    assert_one_line(call(tmp_path, recipe, argument), expected.stderr.strip(), program=f"ctde-{recipe}")
