"""What the options of a configuration mean: the ``Args`` in the docstrings of its class and of the class's bases."""

from __future__ import annotations

import inspect
import re
import textwrap
from functools import cache

WIDTH = 120


@cache
def documented(config: type) -> dict[str, str]:
    """What each option of a configuration means.

    >>> from ctde_kit.recipes import EvaluationConfig
    >>> documented(EvaluationConfig)["episodes"]
    'how many each time.'
    """
    meanings = {name: meaning for base in reversed(config.__mro__) for name, meaning in _arguments(base).items()}
    return {name: meaning.replace("``", "`") for name, meaning in meanings.items()}


def with_inherited(config: type) -> str | None:
    """The docstring of a configuration with the options that it inherits among its ``Args``; ``None`` without one."""
    own = config.__dict__.get("__doc__")
    if own is None:
        return None
    doc, given = inspect.cleandoc(own), _arguments(config)
    inherited: dict[str, str] = {}
    for base in config.__mro__[1:]:
        inherited |= {name: said for name, said in _arguments(base).items() if name not in {**given, **inherited}}
    if not inherited:
        return own
    lines = "\n".join(_entry(name, meaning) for name, meaning in inherited.items())
    arguments = re.search(r"^Args:\n(?: {4}.*\n?)+", doc, re.MULTILINE)
    if arguments is not None:
        return f"{doc[: arguments.end()].rstrip()}\n{lines}\n{doc[arguments.end() :]}"
    said, example, rest = doc.partition("\n>>>")
    return f"{said.rstrip()}\n\nArgs:\n{lines}\n{example}{rest}"


def _arguments(config: type) -> dict[str, str]:
    """The ``Args`` in a class's own docstring, each in one line."""
    doc = inspect.cleandoc(config.__dict__.get("__doc__") or "")
    arguments = re.search(r"^Args:\n((?: {4}.*\n?)+)", doc, re.MULTILINE)
    entries = re.finditer(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments[1] if arguments else "", re.MULTILINE)
    return {entry[1]: " ".join(entry[2].split()) for entry in entries}


def _entry(name: str, meaning: str) -> str:
    return textwrap.fill(
        f"{name}: {meaning}", WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False
    )
