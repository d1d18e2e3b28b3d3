"""Checks of configuration values, where they are used."""

from __future__ import annotations

from ctde_kit.errors import UserError


def check_positive(**values: float | None) -> None:
    """Raise ``UserError`` unless every value that is given is above zero."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise UserError(f"{name}={value}: expected a number above 0")


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


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``UserError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError(f"{name}={value}: expected one of {', '.join(choices)}")
