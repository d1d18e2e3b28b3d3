"""Errors of the library speak of its own arguments; the command line says them in its options."""

from __future__ import annotations

import functools
import re

import pytest

from ctde_kit.recipes.commands.option_words import OPTION_WORDS, in_options
from tests.error_words import COMMAND_LINE_SYNTAX, texts


@functools.cache
def every_text() -> list[tuple[str, str]]:
    return list(texts())


def test_no_error_of_the_library_has_command_line_syntax() -> None:
    assert len(every_text()) > 150, "errors were not found"
    found = [f"{place}: {text}" for place, text in every_text() if COMMAND_LINE_SYNTAX.search(text)]
    assert not found


@pytest.mark.parametrize(
    "planted",
    [
        "use critic=centralized",
        "replay.capacity=9: expected more",
        "use network@actor=mlp",
        "leave video=false",
        "go on with resume=RUN_DIR",
        "task.n_envs=0: expected 1 or more",
        "choose another hydra.run.dir",
        "resume it with ctde-mappo",
        "compile=off",
        "clip_value=None (null on a command line)",
    ],
)
def test_command_line_syntax_is_found(planted: str) -> None:
    assert COMMAND_LINE_SYNTAX.search(planted)


@pytest.mark.parametrize(
    "plain",
    [
        "sees='state': use sees='team'",
        "n=0: expected at least 1 step",
        "leave scale=None",
        "pass scale=LearnedScale(...)",
        "deviation=nan: expected a number above 0",
        'pip install "ctde-kit[lbf]"',
        'pip install "ctde-kit[rware]"',
        "append envs.transforms.AgentState to it",
    ],
)
def test_python_is_no_command_line_syntax(plain: str) -> None:
    assert not COMMAND_LINE_SYNTAX.search(plain)


def test_every_option_stands_for_words_that_an_error_has() -> None:
    for beginning, words in OPTION_WORDS.items():
        said = [text for _, text in every_text() if text.startswith(beginning)]
        assert said, f"no error begins with {beginning!r}"
        for pattern in words:
            assert any(re.search(pattern, text) for text in said), pattern


def test_errors_in_options_name_no_argument_of_the_library() -> None:
    beginnings = tuple(OPTION_WORDS)
    for place, text in every_text():
        if text.startswith(beginnings):
            assert not re.search(r"\b(sees|stored_on|algorithm)='", in_options(text)), place
