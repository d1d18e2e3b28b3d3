"""Configurations as plain data, and back: a file can name classes of the closed table and nothing else."""

from __future__ import annotations

import dataclasses
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ctde_kit.errors import UserError, one_line
from ctde_kit.files import JsonObject, replacing, seal_holds
from ctde_kit.recipes.configs.checks import PATH, Declared, without_numpy
from ctde_kit.recipes.configs.choices import CHOICES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

KIND = "kind"
LOOKUP = re.compile(r"(\\*)\$\{")
Config = TypeVar("Config")


def to_data(config: DataclassInstance) -> JsonObject:
    """The options of a configuration as mappings, lists and plain values; ``kind`` says which class of several.

    >>> from ctde_kit.recipes.configs.return_forms import NStepReturns
    >>> to_data(NStepReturns(n=3))
    {'kind': 'n_step', 'n': 3}
    """
    base = next((base for base in type(config).__mro__ if base in CHOICES), None)
    kinds = {} if base is None else {chosen: name for name, chosen in CHOICES[base].items()}
    data: JsonObject = {KIND: kinds[type(config)]} if kinds else {}
    return data | {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_data(declared: type[Config], data: object, path: str) -> Config:
    """The configuration that ``to_data`` wrote, checked.

    Args:
        declared: the type of the option, or the class itself.
        data: as read from a file.
        path: of the file, for errors.

    Raises:
        UserError: for options that the class does not have, values of another type, and names that are not in the
            table.
    """
    try:
        config = _checked(_node(declared, data, path), path)
    except (OmegaConfBaseException, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; restore the file") from error
    assert isinstance(config, declared)
    return config


def write_data(data: JsonObject, path: Path) -> None:
    """Write a mapping into a YAML file of a run directory, with a checksum as its last line."""
    with replacing(path, sealed=True) as file:
        file.write(yaml.safe_dump(data, sort_keys=False).encode())


def read_data(path: Path) -> JsonObject:
    """The mapping in a YAML file of a run directory; where its last line is a checksum, it must hold.

    Raises:
        UserError: where it is missing, damaged or changed.
    """
    if not path.is_file():
        raise no_run(path.parent, str(path.parent), file=path.name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    last_line = (content.splitlines() or [b""])[-1]
    # A flipped bit in the last line leaves one of these two signs of a checksum.
    if (last_line.startswith(b"#") or b"sha256:" in last_line) and not seal_holds(io.BytesIO(content)):
        raise UserError(
            f"{path} was changed or damaged (its SHA-256 does not hold): restore it, or delete its last line if you "
            "changed it on purpose"
        )
    try:
        data = yaml.load(content.decode(), _Loader)
    except Exception as error:  # a damaged file can raise almost any exception, a deeply nested one RecursionError
        raise UserError(f"{path} cannot be read: {one_line(error, 200)}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path} is no whole configuration of a run: restore it, or start a new run")
    return data


def no_run(directory: Path, named: str, others: Sequence[str] = (), file: str = "config.yaml") -> UserError:
    """The error for a directory that is no run's.

    Args:
        directory: where a run was expected.
        named: it as the caller gave it, with the name of the option or argument.
        others: what the caller may give instead of a directory.
        file: the file that a run would have there.
    """
    found = f"it is no run directory, it has no {file}" if directory.is_dir() else "there is no such directory"
    found = "it is a file, and no run directory" if directory.is_file() else found
    also = f", nor is it one of {', '.join(others)}" if others else ""
    parent = directory.parent
    beside = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    close = [
        str(parent / name) for name in difflib.get_close_matches(directory.name, beside) if parent / name != directory
    ]
    close = [*difflib.get_close_matches(str(directory), others), *close]
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return UserError(f"{named}: {found}{also}; give the directory that a run printed{hint}")


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which ``to_data`` never writes: a few lines of them could fill the memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("expected a value, found an alias")
        return super().compose_node(parent, index)


def flat_options(options: Mapping[str, object], place: str = "") -> JsonObject:
    """``{"critic": {"sees": "state"}}`` as ``{"critic.sees": "state"}``."""
    flat: JsonObject = {}
    for name, value in options.items():
        flat |= flat_options(value, f"{place}{name}.") if isinstance(value, Mapping) else {f"{place}{name}": value}
    return flat


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_data(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else without_numpy(value)


def _checked(node: DictConfig, path: str) -> object:
    """The configuration in ``node``; an error of its class becomes one line that names the file."""
    try:
        return OmegaConf.to_object(node)
    except UserError as error:
        raise UserError(f"{path}: {one_line(error)}") from error


def _node(declared: type, data: object, path: str) -> DictConfig:
    if not isinstance(data, Mapping):
        raise UserError(f"{path}: expected options of {declared.__name__}, found {data!r}; restore the file")
    chosen = _chosen(declared, data, path)
    node, types = OmegaConf.structured(chosen), get_type_hints(chosen)
    paths = {field.name for field in dataclasses.fields(chosen) if field.metadata == PATH}
    for name, value in data.items():
        if name == KIND and declared in CHOICES:
            continue
        if name not in types:
            raise UserError(f"{path}: {name!r} is no option of {chosen.__name__}; restore the file")
        node[name] = _value(types[name], _escaped(value) if name in paths else value, f"{path}: {name}")
    return node


def _chosen(declared: type, data: Mapping[str, object], path: str) -> type:
    if declared not in CHOICES:
        return declared
    kinds, kind = CHOICES[declared], str(data.get(KIND))
    if kind not in kinds:
        raise UserError(f"{path}: expected `kind` to be one of {', '.join(kinds)}, found {kind!r}; restore the file")
    return kinds[kind]


def _value(declared: Declared, value: object, path: str) -> object:
    if isinstance(value, Mapping) and dataclasses.is_dataclass(declared):
        return _node(declared, value, path)  # pyright: ignore[reportArgumentType]  # the class of a dataclass
    if isinstance(value, Mapping) and get_origin(declared) is dict:
        inside = get_args(declared)[1]
        return {key: _value(inside, part, f"{path}.{key}") for key, part in value.items()}
    _check_plain(value, path)
    return value


def _escaped(value: object) -> object:
    """A path, or a mapping of them, as text in which OmegaConf looks nothing up."""
    if isinstance(value, Mapping):
        return {key: _escaped(part) for key, part in value.items()}
    return LOOKUP.sub(lambda match: f"{match[1] * 2}\\${{", value) if isinstance(value, str) else value


def _check_plain(value: object, path: str) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_plain(part, f"{path}.{key}")
    elif isinstance(value, list):
        for part in value:
            _check_plain(part, path)
    elif isinstance(value, str) and any(len(match[1]) % 2 == 0 for match in LOOKUP.finditer(value)):
        raise UserError(f"{path}: expected a value, found {value!r}, which would look one up; write the value itself")
    elif not isinstance(value, (str, int, float, type(None))):
        raise UserError(f"{path}: expected a value, found {value!r} of type {type(value).__name__}; restore the file")
