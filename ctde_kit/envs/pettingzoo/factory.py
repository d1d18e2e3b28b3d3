"""PettingZoo environments by name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from ctde_kit.errors import UserError

# Families that are not packages of PettingZoo modules: the module and function that build an env from the rest of the
# name.
_SUITES = {"rware": ("ctde_kit.envs.rware", "parallel_env"), "openspiel": ("ctde_kit.envs.openspiel", "env")}
_FAMILIES = {name: f"pettingzoo.{name}" for name in ("atari", "butterfly", "classic", "sisl")} | {
    "mpe2": "mpe2",
    "gymnasium_robotics": "gymnasium_robotics",
    "magent2": "magent2",
}
_EXTRAS = {"gymnasium_robotics": '"ctde-kit[mamujoco]"'}
_VERSIONED = re.compile(r".+_v\d+")
# How deep in a package environments are looked for: ``gymnasium_robotics.envs.multiagent_mujoco.mujoco_multi``.
_DEPTH = 3


@dataclass(frozen=True)
class PettingZooFactory:
    """Builds one environment at every call: the parallel one where the module has it, else the AEC one.

    Raises ``UserError`` for a keyword argument that the environment does not know.

    >>> from ctde_kit.envs.pettingzoo import pettingzoo_factory
    >>> pettingzoo_factory("mpe2/simple_spread_v3", n_agents=2)()
    Traceback (most recent call last):
        ...
    ctde_kit.errors.UserError: mpe2/simple_spread_v3: unknown argument 'n_agents'; did you mean num_agent_neighbors?
    """

    name: str
    module: ModuleType
    kwargs: Mapping[str, object]

    def __call__(self) -> object:
        build = getattr(self.module, "parallel_env", None) or self.module.env
        try:
            return build(**self.kwargs)
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in self.kwargs:
                raise
            known = [
                name for name in inspect.signature(self.module.raw_env).parameters if name not in ("args", "kwargs")
            ]
            raise UserError(f"{self.name}: unknown argument {unknown[1]!r}{_suggest(unknown[1], known)}") from error


def pettingzoo_factory(name: str, **kwargs: object) -> Callable[[], object]:
    """A factory of the environment ``name``, ``FAMILY/MODULE``, for :func:`~ctde_kit.envs.workers.worker_env`.

    ``FAMILY`` is one of PettingZoo's (atari, butterfly, classic, sisl), mpe2, magent2, gymnasium_robotics, or any
    importable package that has environment modules (``NAME_vNUMBER``) in it or in the packages inside it. After
    ``rware/`` comes an id instead, after ``openspiel/`` a game. ``kwargs`` go to the environment. A module is imported
    here, the environment is not built.

    Raises ``UserError`` for unknown names, with those that are close, and where a dependency is missing.

    >>> from ctde_kit.envs.pettingzoo import pettingzoo_factory
    >>> env = pettingzoo_factory("mpe2/simple_spread_v3", N=2)()
    >>> env.possible_agents
    ['agent_0', 'agent_1']
    """
    family, _, module = name.partition("/")
    if family in _SUITES:
        place, function = _SUITES[family]
        return partial(getattr(importlib.import_module(place), function), module, **kwargs)
    package = _FAMILIES.get(family, family)
    known = _versioned_modules(package) if all(map(str.isidentifier, package.split("."))) else {}
    if not known and family in _FAMILIES and importlib.util.find_spec(package.partition(".")[0]) is None:
        raise UserError(
            f"environment {name!r}: needs the package {package!r}; pip install {_EXTRAS.get(package, package)}"
        )
    if not known:
        raise UserError(f"environment {name!r}: unknown family {family!r}{_suggest(family, [*_FAMILIES, *_SUITES])}")
    if module not in known:
        raise UserError(f"environment {name!r}: unknown module {module!r}{_suggest(module, [*known])}")
    try:
        return PettingZooFactory(name, importlib.import_module(known[module]), kwargs)
    except ModuleNotFoundError as error:
        extra = (
            f'pip install "pettingzoo[{family}]"' if package.startswith("pettingzoo.") else f"pip install {error.name}"
        )
        raise UserError(f"environment {name!r}: needs the package {error.name!r}; {extra}") from error


def own_package(name: str) -> Path | None:
    """The directory of the package that holds the environment ``name``, where it is a user's own; else ``None``.

    The families that ``pettingzoo_factory`` lists are not a user's own. Nothing is imported.

    >>> from ctde_kit.envs.pettingzoo import own_package
    >>> own_package("mpe2/simple_spread_v3")
    """
    family = name.partition("/")[0]
    top = family.partition(".")[0]
    if family in {**_FAMILIES, **_SUITES} or not top.isidentifier():
        return None
    locations = _locations(top)
    return Path(locations[0]) if locations else None


def _locations(package: str) -> list[str]:
    """The directories of a package. Nothing is imported: its name may come from a file."""
    top, *inside = package.split(".")
    spec = importlib.util.find_spec(top)
    roots = list((spec.submodule_search_locations if spec else None) or [])
    return [str(Path(root, *inside)) for root in roots]


def _versioned_modules(package: str) -> dict[str, str]:
    """The environment modules in a package and in the packages inside it, by name, such as ``battle_v4``."""
    found: dict[str, str] = {}
    packages = [package]
    for place in packages:
        for entry in pkgutil.iter_modules(_locations(place)):
            inside = f"{place}.{entry.name}"
            if _VERSIONED.fullmatch(entry.name):
                found.setdefault(entry.name, inside)
            elif entry.ispkg and inside.count(".") <= _DEPTH:
                packages.append(inside)
    return found


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, cutoff=0.5)
    if close:
        return f"; did you mean {', '.join(close)}?"
    return f"; expected one of {', '.join(sorted(known))}" if known else "; see the environment's documentation"
