"""A user's own code that a configuration names: recorded with its SHA-256; read from a run, it needs trust to run."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject

logger = logging.getLogger("ctde_kit")


@runtime_checkable
class NamesCode(Protocol):
    """A configuration that can name code from outside the kit and its dependencies."""

    def own_code(self) -> Mapping[str, Path]:
        """By the name in the configuration, the file or the package's directory; found without running it."""
        ...


def code_of(config: object) -> dict[str, Path]:
    """All code of a user's own that ``config`` names, in itself and in all its parts."""
    found: dict[str, Path] = dict(config.own_code()) if isinstance(config, NamesCode) else {}
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    parts = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    for part in parts:
        found |= code_of(part)
    return found


def recorded(code: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """The path and SHA-256 of each piece of code, which a run directory keeps."""
    return {name: {"path": str(path.absolute()), "sha256": digest(path)} for name, path in code.items()}


def with_changes(records: JsonObject, code: Mapping[str, Path], frames: int) -> JsonObject:
    """``records`` and, of code that is not what they have last, what it is from ``frames`` on, under ``changed``.

    Args:
        records: what ``recorded`` or this function returned.
        code: that a run goes on with.
        frames: that the run has.
    """
    changed = dict(records)
    now = recorded(code)
    for name in now.keys() & records.keys():
        # What followed the checkpoint is done again, whatever code did it.
        kept = [change for change in records[name].get("changed", []) if change["frames"] < frames]
        first = {key: value for key, value in records[name].items() if key != "changed"}
        if now[name]["sha256"] != (kept[-1] if kept else first)["sha256"]:
            kept.append({"frames": frames, **now[name]})
        changed[name] = {**first, **({"changed": kept} if kept else {})}
    return changed


def _digests(record: JsonObject) -> list[str]:
    """The SHA-256 of the code that a run was started with, then those of what it went on with."""
    return [record["sha256"], *(change["sha256"] for change in record.get("changed", []))]


def identified(name: str, records: Mapping[str, Any]) -> str:
    """A name for code that does not depend on where its file lies: its attribute and its SHA-256, or several.

    Args:
        name: as the configuration has it; the result where nothing was recorded of it.
        records: what ``recorded`` kept.
    """
    if name not in records:
        return name
    return f"{name.rpartition(':')[2]} (code of SHA-256 {', then '.join(_digests(records[name]))})"


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of all Python files of a package's directory."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    content = hashlib.sha256()
    for file in sorted(path.rglob("*.py")):
        content.update(f"{file.relative_to(path).as_posix()}\n{digest(file)}\n".encode())
    return content.hexdigest()


def check_trust(config: object, records: Mapping[str, Any], source: Path, *, trust: bool) -> None:
    """Raise ``UserError`` where a file's configuration names a user's own code and the caller does not trust it.

    A warning tells of each piece of code that has changed since the run recorded it.

    Args:
        config: as read from ``source``.
        records: what ``recorded`` said when the run was started.
        source: of the configuration.
        trust: whether the caller trusts the code.
    """
    for name, path in code_of(config).items():
        if not trust:
            where = "" if name.startswith(str(path)) else f" in {path}"
            raise UserError(
                f"{source} names code of its own, {name}{where}: look at it, and give trust=true, or "
                "load(RUN_DIR, trust=True), to have it run"
            )
        if name not in records or _digests(records[name])[-1] != digest(path):
            logger.warning(
                "%s: %s in %s is not the code that the run was trained with; it is used as it is now",
                source,
                name,
                path,
            )
