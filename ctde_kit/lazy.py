"""Public names of a package that are imported at their first use, so that ``--help`` need not load torch."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def lazy_face(
    package: str, names: Mapping[str, str], packages: Sequence[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` (PEP 562) of a package whose public names live elsewhere.

    Args:
        package: its ``__name__``.
        names: by public name, the module that holds it; a name that equals the module's last part is the module itself.
        packages: where else a name may be found that is asked for here, for the error.
    """

    def load(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}{_hint(package, name, names, packages)}")
        module = importlib.import_module(names[name])
        value = module if names[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*names, *(name for name in vars(sys.modules[package]) if name.startswith("__"))})

    return load, listed


def _hint(package: str, name: str, names: Mapping[str, str], packages: Sequence[str]) -> str:
    # Tools ask any module for such names, and `from package import module` for those of modules.
    if name.startswith("_") or importlib.util.find_spec(f"{package}.{name}") is not None:
        return ""
    places = [one for one in packages if f'"{name}"' in _source(f"{package}.{one}")]
    found = [f"{package}.{one}.{name}" for one in places] or difflib.get_close_matches(name, names, n=1, cutoff=0.8)
    return f"; did you mean {found[0]}?" if found else ""


def _source(package: str) -> str:
    """The text of a package's own file, which is not imported."""
    spec = importlib.util.find_spec(package)
    return "" if spec is None or spec.origin is None else Path(spec.origin).read_text()
