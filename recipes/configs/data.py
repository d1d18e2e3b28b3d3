"""Configurations as plain data, and back: a file can name classes of the closed table and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.choices import CHOICES

KIND = "kind"
Config = TypeVar("Config")


def to_data(config: Any) -> dict[str, Any]:
    """The options of a configuration as mappings, lists and plain values; ``kind`` says which class of several.

    >>> from ctde_kit.recipes.configs.return_forms import NStepReturns
    >>> to_data(NStepReturns(n=3))
    {'kind': 'n_step', 'n': 3}
    """
    base = next((base for base in type(config).__mro__ if base in CHOICES), None)
    kinds = {} if base is None else {chosen: name for name, chosen in CHOICES[base].items()}
    data = {KIND: kinds[type(config)]} if kinds else {}
    return data | {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_data(declared: type[Config], data: Mapping[str, Any], path: str) -> Config:
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
        return _checked(_node(declared, data, path), path)
    except (OmegaConfBaseException, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; restore the file") from error


def read_data(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of a run directory.

    Raises:
        UserError: where it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} is no run directory: it has no {path.name}")
    try:
        data = yaml.load(path.read_text(), _Loader)
    except Exception as error:  # a damaged file can raise almost any exception, a deeply nested one RecursionError
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path} is no whole configuration of a run: restore it, or start a new run")
    return data


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which ``to_data`` never writes: a few lines of them stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("expected a value, found an alias")
        return super().compose_node(parent, index)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_data(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _checked(node: DictConfig, path: str) -> Any:
    """The configuration in ``node``; what its class refuses is said in one line that names the file."""
    try:
        return OmegaConf.to_object(node)
    except UserError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error


def _node(declared: type, data: Mapping[str, Any], path: str) -> DictConfig:
    if not isinstance(data, Mapping):
        raise UserError(f"{path}: expected options of {declared.__name__}, found {data!r}; restore the file")
    chosen = _chosen(declared, data, path)
    node, types = OmegaConf.structured(chosen), get_type_hints(chosen)
    for name, value in data.items():
        if name == KIND and declared in CHOICES:
            continue
        if name not in types:
            raise UserError(f"{path}: {name!r} is no option of {chosen.__name__}; restore the file")
        node[name] = _value(types[name], value, f"{path}: {name}")
    return node


def _chosen(declared: type, data: Mapping[str, Any], path: str) -> type:
    if declared not in CHOICES:
        return declared
    kinds, kind = CHOICES[declared], str(data.get(KIND))
    if kind not in kinds:
        raise UserError(f"{path}: expected `kind` to be one of {', '.join(kinds)}, found {kind!r}; restore the file")
    return kinds[kind]


def _value(declared: Any, value: Any, path: str) -> Any:
    if isinstance(value, Mapping) and dataclasses.is_dataclass(declared):
        return _node(declared, value, path)  # pyright: ignore[reportArgumentType]  # the class of a dataclass
    if isinstance(value, Mapping) and get_origin(declared) is dict:
        inside = get_args(declared)[1]
        return {key: _value(inside, part, f"{path}.{key}") for key, part in value.items()}
    _check_plain(value, path)
    return value


def _check_plain(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_plain(part, f"{path}.{key}")
    elif isinstance(value, list):
        for part in value:
            _check_plain(part, path)
    elif isinstance(value, str) and "${" in value:
        raise UserError(f"{path}: expected a value, found {value!r}, which would look one up; write the value itself")
    elif not isinstance(value, (str, int, float, type(None))):
        raise UserError(f"{path}: expected a value, found {value!r} of type {type(value).__name__}; restore the file")
