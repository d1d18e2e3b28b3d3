"""A user's own code by name, ``MODULE:NAME`` or ``FILE.py:NAME``: found without being run, imported when it is used."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from ctde_kit.errors import UserError, one_line


def check_name(name: str, shown: str) -> None:
    """Raise ``UserError`` unless ``name`` is ``MODULE:NAME`` or ``FILE.py:NAME``.

    Args:
        name: as the user wrote it.
        shown: the option and its value, for errors.

    >>> check_name("my_games.tag:make", "task.env=my_games.tag:make")
    """
    place, separator, attribute = name.rpartition(":")
    is_module = all(map(str.isidentifier, place.split(".")))
    if not separator or not attribute.isidentifier() or not (is_module or place.endswith(".py")):
        raise UserError(f"{shown}: expected MODULE:NAME or FILE.py:NAME, such as mine.py:Scenario")
    if place == "__main__":
        raise UserError(f"{shown}: a script cannot be imported by that name; write FILE.py:NAME")


def with_absolute_file(name: str) -> str:
    """``FILE.py:NAME`` with the whole path, since a run may go on in another working directory; modules as they are."""
    place, separator, attribute = name.rpartition(":")
    return f"{os.path.abspath(place)}{separator}{attribute}" if place.endswith(".py") else name


def source(name: str, shown: str) -> Path:
    """The file of what is named, or the directory of the package that it is in; none of it is run.

    Modules are found where Python finds them, and in the working directory.

    Raises:
        UserError: where there is none.
    """
    check_name(name, shown)
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        path = Path(place).absolute()
        if not path.is_file():
            raise UserError(f"{shown}: there is no file {path}; give its path from here, or the whole one")
        return path
    outermost = _specs(name, shown)[0]
    package = outermost.submodule_search_locations
    return Path(next(iter(package))) if package else Path(outermost.origin or "")


# Files, and directories of packages, that `imported` has run code of.
_RUN: set[Path] = set()


def own_line(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost line of an error's traceback, or of its cause's, in the user's own code; ``None`` for none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if any(Path(frame.filename).absolute().is_relative_to(place) for place in _RUN):
            return frame
    # Python makes another error of a `StopIteration`.
    return None if error.__cause__ is None else own_line(error.__cause__)


def imported(name: str, shown: str) -> Any:
    """The object that ``name`` names.

    Raises:
        UserError: for files and modules that do not exist or cannot be imported, and names that they do not have.
    """
    found, attribute = source(name, shown), name.rpartition(":")[2]
    _RUN.add(found)
    is_file = name.rpartition(":")[0].endswith(".py")
    if is_file or found.parent == Path.cwd():
        # What it imports in its turn is looked for beside it, as Python does for a script.
        folder = str(found.parent)
        if folder not in sys.path:
            sys.path.append(folder)
    module = _run(shown, (lambda: _file_module(found)) if is_file else (lambda: _module(name, shown)))
    if not hasattr(module, attribute):
        raise UserError(f"{shown}: {module.__file__} has no {attribute!r}; name something that it has")
    return getattr(module, attribute)


def _run(shown: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except UserError:
        raise
    # Also `sys.exit()` at the end of a script.
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = one_line(error, 200)
        raise UserError(
            f"{shown}: it cannot be imported ({type(error).__name__}: {reason}; in {place.filename}, line "
            f"{place.lineno}); mend it"
        ) from error


def _file_module(path: Path) -> ModuleType:
    """The module of a file; its name depends on path and content, so that a changed file is another module."""
    module_name = f"{path.stem}_{hashlib.sha256(bytes(path) + path.read_bytes()).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _module(name: str, shown: str) -> ModuleType:
    spec = _specs(name, shown)[-1]
    module = importlib.import_module(spec.name)
    if module.__spec__ is None or module.__spec__.origin != spec.origin:
        raise UserError(
            f"{shown}: another module {spec.name} is imported already, not {spec.origin}; give yours another name"
        )
    return module


def _specs(name: str, shown: str) -> list[ModuleSpec]:
    """The specs of a module and of the packages around it, the outermost first."""
    importlib.invalidate_caches()
    module_name = name.rpartition(":")[0]
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
            f"{shown}: there is no module {module_name}, neither in {Path.cwd()} nor where Python looks; start "
            "the command where it is, or name its directory in PYTHONPATH"
        )
    return specs


def _installed_spec(name: str) -> ModuleSpec | None:
    """The spec of a package that is installed as a link to its source."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module that somebody made without a file
        return None
