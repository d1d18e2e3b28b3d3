"""Checks of configuration values: all types are checked here, ranges by functions that each configuration calls."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Any, NamedTuple, Self, TypeAlias, TypeGuard, get_args, get_origin, get_type_hints

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.option_docs import with_inherited

Declared: TypeAlias = Any
"""A type as a dataclass declares it, such as ``int | None`` or ``list[str]``, for which Python has no type."""
# What an int64 holds.
LARGEST = 2**63 - 1
# The metadata of a field that is a path: any characters are data.
PATH = {"path": True}


class Misfit(NamedTuple):
    """A value that is not of the declared type.

    Args:
        place: where it stands in the option, such as ``[1]`` in a list; empty for the option itself.
        value: the value.
        expected: what was expected, in words.
    """

    place: str
    value: object
    expected: str


@dataclasses.dataclass
class CheckedConfig:
    """The base of all configurations: making one raises an error where a value has another type than its field.

    The docstring of each also explains the options that it inherits.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.__doc__ = with_inherited(cls)

    def __new__(cls, *args: object, **given: object) -> Self:
        """Checks the names of what is given, before Python does in fewer words."""
        fields = dataclasses.fields(cls)
        if args and all(field.kw_only for field in fields):
            raise TypeError(
                f"{cls.__name__}: options are given by keyword, as in {cls.__name__}(seed=1); found {shown(args[0])}"
            )
        known = [field.name for field in fields]
        for name in given.keys() - {*known}:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"help({cls.__name__}) explains them"
            raise TypeError(f"{cls.__name__} has no option {name!r}; {hint}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_types(self)


def without_numpy(value: Any) -> Any:
    """Python's own number for one of numpy's, which is not loaded for that; anything else as it is."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value


def check_types(config: CheckedConfig) -> None:
    """Raise ``UserError`` unless every field has a finite value of its declared type; ``1e6`` is a whole number."""
    for name, declared in field_types(type(config)).items():
        value = without_numpy(getattr(config, name))
        setattr(config, name, value)
        if _is_whole(value) and int in (declared, *get_args(declared)):
            value = int(value)
            setattr(config, name, value)
        misfit = find_misfit(value, declared)
        if misfit is not None:
            raise UserError(f"{name}{misfit.place}={shown(misfit.value)}: expected {misfit.expected}")


def in_full(option: str, config: type, message: str) -> str:
    """An error's ``message`` with the whole name of the option where it begins with a field of ``config``.

    >>> from ctde_kit.recipes import GRUNetwork
    >>> in_full("actor", GRUNetwork, "hidden_size=0: expected a number above 0")
    'actor.hidden_size=0: expected a number above 0'
    """
    named = re.match(r"(\w+)[=:\[]", message)
    return f"{option}.{message}" if named and named[1] in field_types(config) else message


@contextlib.contextmanager
def building(option: str, config: CheckedConfig) -> Iterator[None]:
    """Inside the block, which builds the part that ``option`` chooses, errors name its options in full."""
    try:
        yield
    except UserError as error:
        raise UserError(in_full(option, type(config), str(error))) from error


@cache
def field_types(config: type) -> dict[str, Declared]:
    """The declared types of a dataclass's fields, by name."""
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def find_misfit(value: object, declared: Declared) -> Misfit | None:
    """The part of ``value`` that is not of the type ``declared``; ``None`` where all of it is.

    >>> find_misfit([64, "wide"], list[int])
    Misfit(place='[1]', value='wide', expected='a whole number')
    """
    kinds = get_args(declared) if NoneType in get_args(declared) else (declared,)
    if value is None and (NoneType in kinds or declared is Any):
        return None
    kind = next(kind for kind in kinds if kind is not NoneType)
    expected = _expected(kind) + (", or null" if NoneType in kinds else "")
    if get_origin(kind) in (list, dict):
        return _misfit_inside(value, kind, expected)
    if kind is Any:
        return _misfit_of_plain(value)
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        return Misfit("", value, expected)
    return _misfit_of_number(value)


def _misfit_inside(value: object, kind: Declared, expected: str) -> Misfit | None:
    parts: list[tuple[str, object]]
    if get_origin(kind) is list and isinstance(value, (list, tuple)):
        parts = [(f"[{index}]", part) for index, part in enumerate(value)]
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        parts = [(f".{key}", part) for key, part in value.items()]
    else:
        return Misfit("", value, expected)
    for place, part in parts:
        misfit = find_misfit(part, get_args(kind)[-1])
        if misfit is not None:
            return misfit._replace(place=place + misfit.place)
    return None


def _misfit_of_plain(value: object) -> Misfit | None:
    """The number in a value of any type, however deep, that is not finite or does not fit an int64."""
    if isinstance(value, Mapping):
        return _misfit_inside(value, JsonObject, "options")
    if isinstance(value, (list, tuple)):
        return _misfit_inside(value, list[Any], "a list")
    return _misfit_of_number(value)


def _misfit_of_number(value: object) -> Misfit | None:
    if isinstance(value, float) and not math.isfinite(value):
        return Misfit("", value, "a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        return Misfit("", value, f"a number up to {LARGEST}")
    return None


def _is_whole(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST


def _expected(kind: Declared) -> str:
    words: dict[Declared, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if kind in words:
        return words[kind]
    if get_origin(kind) is list:
        return "a list of whole numbers, such as [64,64]" if get_args(kind) == (int,) else "a list"
    if get_origin(kind) is dict:
        return "options by name"
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return f"{article} {kind.__name__}, such as {_example(kind).__name__}()"


def _example(kind: type) -> type:
    """A class that can be shown as an example of ``kind``: its first subclass of the kit, else ``kind`` itself."""
    classes = [made for made in kind.__subclasses__() if made.__module__.startswith("ctde_kit.")]
    return _example(classes[0]) if classes else kind


def shown(value: object) -> str:
    """A value as an error shows it: configurations by their class, and 60 characters at most."""
    text = f"{type(value).__name__}(...)" if dataclasses.is_dataclass(value) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
            "smaller, or raise frames_per_batch"
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


def check_part(algorithm: str, fits: bool, *, expected: str, python: str, found: str) -> None:
    """Raise ``UserError`` unless a part ``fits`` the ``algorithm``; with another part it is another algorithm.

    Args:
        algorithm: the recipe's.
        fits: whether the part does.
        expected: the option that gives the part.
        python: the same from Python.
        found: in its place.
    """
    if not fits:
        raise UserError(
            f"algorithm={algorithm}: expected {expected} (from Python {python}), found {found}; give it, or run "
            "another recipe"
        )


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``UserError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError(f"{name}={value}: expected one of {', '.join(choices)}")
