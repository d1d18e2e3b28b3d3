"""Callbacks that a configuration names, ``MODULE:FUNCTION``: found without being run, imported when a run starts."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctde_kit.errors import UserError

if TYPE_CHECKING:
    from ctde_kit.training.callbacks import OnIteration

ARGUMENTS = "(parts, iteration, row)"


def check_names(names: Sequence[str]) -> None:
    """Raise ``UserError`` unless every name is ``MODULE:FUNCTION``, and each is there once."""
    for name in names:
        module, separator, function = name.partition(":")
        if not separator or not function.isidentifier() or not all(map(str.isidentifier, module.split("."))):
            raise UserError(f"callbacks=[{name}]: expected MODULE:FUNCTION, such as callbacks=[curriculum:harder]")
        if module == "__main__":
            raise UserError(f"callbacks=[{name}]: a script cannot be imported; put the function into a file of its own")
        if names.count(name) > 1:
            raise UserError(f"callbacks=[{name}]: it is there twice; leave one out")


def source(name: str) -> Path:
    """The file of a callback's module, or the directory of the package that it is in; none of it is run.

    Modules are found where Python finds them, and in the working directory.

    Raises:
        UserError: where there is none.
    """
    specs = _specs(name)
    package = specs[0].submodule_search_locations
    return Path(next(iter(package))) if package else Path(specs[0].origin or "")


def search_recorded(names: Iterable[str], records: Mapping[str, Any]) -> None:
    """Have Python look for modules where they were when a run was started, too, whatever the working directory is now.

    Args:
        names: of the callbacks.
        records: what ``own_code.recorded`` said of them.
    """
    for record in map(records.get, names):
        if isinstance(record, Mapping) and isinstance(record.get("path"), str):
            folder = str(Path(record["path"]).parent)
            if folder not in sys.path:
                sys.path.append(folder)


def imported(names: Iterable[str]) -> dict[str, OnIteration]:
    """The callbacks by name, imported; of one that is an object each run has a copy of its own.

    Raises:
        UserError: for modules and functions that there are not, or that cannot be called with parts, iteration and row.
    """
    return {name: _imported(name) for name in names}


def _imported(name: str) -> OnIteration:
    module_name, _, attribute = name.partition(":")
    spec, folder = _specs(name)[-1], str(source(name).parent)
    if folder == str(Path.cwd()) and folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    # Also `sys.exit()` at the end of a script.
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"callbacks=[{name}]: {module_name} cannot be imported ({type(error).__name__}: {reason}; in "
            f"{place.filename}, line {place.lineno}); mend it"
        ) from error
    if module.__spec__ is None or module.__spec__.origin != spec.origin:
        raise UserError(
            f"callbacks=[{name}]: another module {module_name} is imported already, not {spec.origin}; give yours "
            "another name"
        )
    if not hasattr(module, attribute):
        raise UserError(f"callbacks=[{name}]: {spec.origin} has no {attribute!r}; name a function that it has")
    return _callback(name, getattr(module, attribute))


def _callback(name: str, found: Any) -> OnIteration:
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
        signature = None  # some that are written in C say nothing
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
            f"({type(error).__name__}: {' '.join(str(error).split())[:100]}); open files and the like in its first call"
        ) from error


def _specs(name: str) -> list[ModuleSpec]:
    """Of a callback's module and the packages around it, the outermost first."""
    importlib.invalidate_caches()
    module_name = name.partition(":")[0]
    parts = module_name.split(".")
    locations: Sequence[str] | None = [*sys.path, str(Path.cwd())]
    specs: list[ModuleSpec] = []
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), locations)
        if spec is None and depth == 0:
            spec = _installed_spec(parts[0])
        if spec is None:
            break
        specs.append(spec)
        locations = spec.submodule_search_locations or []
    if len(specs) < len(parts) or not specs[-1].has_location:
        raise UserError(
            f"callbacks=[{name}]: there is no module {module_name}, neither in {Path.cwd()} nor where Python looks; "
            "start the command where it is, or name its directory in PYTHONPATH"
        )
    return specs


def _installed_spec(name: str) -> ModuleSpec | None:
    """Of packages that are installed as links to their source."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module that somebody made without a file
        return None
