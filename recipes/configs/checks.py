"""Checks of configuration values, where they are used."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ctde_kit.errors import UserError

# What an int64 holds.
LARGEST = 2**63 - 1
# The metadata of a field that is a path: any characters are data.
PATH = {"path": True}


def check_numbers(value: Any, name: str = "") -> None:
    """Raise ``UserError`` for a number in ``value``, whatever it is made of, that is not finite or beyond an int64."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, part in value.items():
            check_numbers(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            check_numbers(part, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value}: expected a finite number")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"{name}={value}: expected a number up to {LARGEST}")


def check_positive(**values: float | None) -> None:
    """Raise ``UserError`` unless every value that is given is above zero."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise UserError(f"{name}={value}: expected a number above 0")


def check_minibatch(minibatch_frames: int, frames_per_batch: int) -> None:
    """Raise ``UserError`` for a minibatch that is larger than the batch that it is drawn from."""
    if minibatch_frames > frames_per_batch:
        raise UserError(
            f"minibatch_frames={minibatch_frames}: expected at most frames_per_batch={frames_per_batch}; make it "
            "smaller"
        )


def check_not_negative(**values: float | None) -> None:
    """Raise ``UserError`` for a value below zero."""
    for name, value in values.items():
        if value is not None and not value >= 0:
            raise UserError(f"{name}={value}: expected 0 or more")


def check_ratio(**values: float) -> None:
    """Raise ``UserError`` unless every value is in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name}={value}: expected a ratio from 0 to 1")


def check_part(algorithm: str, name: str, value: object, fits: bool, expected: str) -> None:
    """Raise ``UserError`` where a part makes another algorithm of the one that is named."""
    if not fits:
        raise UserError(f"algorithm={algorithm}: expected {name}={expected}, found {type(value).__name__}; give it")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``UserError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError(f"{name}={value}: expected one of {', '.join(choices)}")
