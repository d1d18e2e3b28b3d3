"""Callbacks that a configuration names, ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctde_kit.errors import UserError, one_line
from ctde_kit.recipes.configs import own_modules

if TYPE_CHECKING:
    from ctde_kit.training.callbacks import OnIteration

ARGUMENTS = "(parts, iteration, row)"


def check_names(names: Sequence[str]) -> None:
    """Raise ``UserError`` unless every name is ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``, and each is there once."""
    for name in names:
        own_modules.check_name(name, _shown(name))
        if names.count(name) > 1:
            raise UserError(f"{_shown(name)}: it is there twice; leave one out")


def source(name: str) -> Path:
    """The file of a callback's module, or the directory of the package that it is in; none of it is run.

    Raises:
        UserError: where there is none.
    """
    return own_modules.source(name, _shown(name))


def imported(names: Iterable[str]) -> dict[str, OnIteration]:
    """The callbacks by name, imported; of a callback that is an object each run gets a copy of its own.

    Raises:
        UserError: for modules and functions that do not exist, or that cannot be called with parts, iteration and row.
    """
    return {name: _callback(name, own_modules.imported(name, _shown(name))) for name in names}


def _shown(name: str) -> str:
    return f"callbacks=[{name}]"


def _callback(name: str, found: object) -> OnIteration:
    if isinstance(found, type):
        raise UserError(
            f"callbacks=[{name}]: it is a class; name an object of it, as in `stop = {found.__name__}()` and "
            f"callbacks=[{name.partition(':')[0]}:stop]"
        )
    if not callable(found):
        raise UserError(f"callbacks=[{name}]: expected a function, found {type(found).__name__}")
    for function in (found, getattr(found, "__call__", found)):  # noqa: B004  # of an object, its own
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise UserError(f"callbacks=[{name}]: a coroutine or generator would never run; give a plain function")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        signature = None  # some callables that are written in C have no signature
    if signature is not None:
        try:
            signature.bind(None, None, None)
        except TypeError as error:
            raise UserError(f"callbacks=[{name}]: expected a function of {ARGUMENTS}, found {signature}") from error
    try:
        # Several runs of one process, as of a sweep, shall not share a state.
        copied: Any = copy.deepcopy(found)
        return copied
    except Exception as error:
        raise UserError(
            f"callbacks=[{name}]: each run needs a copy of the object, and it cannot be copied "
            f"({type(error).__name__}: {one_line(error, 100)}); open files and the like in its first call"
        ) from error
