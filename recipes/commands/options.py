"""The options of a command: names, types and choices, read from files and dataclasses; nothing is composed or built."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import yaml

from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.schemas import FOLDERS, SINGLE
from ctde_kit.recipes.configs.checks import PATH, Declared, field_types
from ctde_kit.recipes.configs.choices import CHOICES

CONF = Path(__file__).parents[1] / "conf"
_SCHEMA = re.compile(r"/schema/(\w+)/(\w+)@(\w+)")


@cache
def options_of(folder: str) -> list[str]:
    """What can be chosen from a folder of ``conf``, such as ``task``."""
    root = CONF / folder
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


@dataclass(frozen=True)
class Options:
    """The options of a command.

    Args:
        config: the dataclass of its options.
        choices: by option, such as ``task`` or ``network@actor``, what its file chooses; ``None`` for nothing.
        critics: the critics that fit the recipe; ``None`` where the command is no recipe with critics.
    """

    config: type
    choices: Mapping[str, str | None]
    critics: tuple[str, ...] | None = None

    @classmethod
    def of(cls, config: type, config_name: str) -> Options:
        """The options of the command whose file in ``conf`` is ``config_name``."""
        recipe = RECIPES.get(config_name)
        return cls(config, dict(_choices(config_name)), (recipe and recipe.critics) or None)

    def with_choices(self, chosen: Mapping[str, str]) -> Options:
        """These options where other things are chosen; a layout or preset chooses, too."""
        choices = {**self.choices, **chosen}
        for bundle in ("layout", "preset"):
            if choices.get(bundle):
                choices = {**choices, **dict(_choices(f"{bundle}/{choices[bundle]}")), **chosen}
        return Options(self.config, choices, self.critics)

    def offered(self, option: str) -> list[str]:
        """What ``option``, such as ``task`` or ``network@actor``, can choose."""
        found = options_of(option.partition("@")[0])
        return [name for name in found if name in self.critics] if option == "critic" and self.critics else found

    @cached_property
    def types(self) -> dict[str, Declared]:
        """The declared type of every option that has a value of its own, by its path."""
        return {path: declared for path, declared, _ in self._leaves(self.config, "")}

    @cached_property
    def paths(self) -> set[str]:
        """The options that are paths or addresses: any text is accepted."""
        return {path for path, _, is_path in self._leaves(self.config, "") if is_path}

    @cached_property
    def classes(self) -> dict[str, type]:
        """The class that is chosen for every option that has options of its own, by its path."""
        classes: dict[str, type] = {}
        for option, chosen in self.choices.items():
            folder, _, package = option.partition("@")
            for inside, made in _schemas(folder, chosen or ""):
                classes[".".join(filter(None, (package or folder, inside)))] = made
        return classes

    def choosing(self, path: str) -> str | None:
        """The option that chooses what is at ``path``, such as ``network@actor`` for ``actor``."""
        return next((option for option in self.choices if path == (option.partition("@")[2] or option)), None)

    def having(self, path: str) -> list[str]:
        """The choices, such as ``network@actor=gru``, under which there is an option ``path``."""
        parent, _, name = path.rpartition(".")
        return [chosen for chosen, kind in self._alternatives(parent).items() if name in field_types(kind)]

    def siblings(self, path: str) -> list[str]:
        """The options of the part that ``path`` is an option of, whatever part is chosen there."""
        parent = path.rpartition(".")[0]
        kinds = self._alternatives(parent).values()
        return list(dict.fromkeys(f"{parent}.{name}" for kind in kinds for name in field_types(kind)))

    def _alternatives(self, path: str) -> dict[str, type]:
        """By choice, such as ``network@actor=gru``, what would be at ``path``."""
        option = self.choosing(path)
        if option is None:
            return {}
        folder = option.partition("@")[0]
        made = {f"{option}={chosen}": dict(_schemas(folder, chosen)).get("") for chosen in self.offered(option)}
        return {chosen: kind for chosen, kind in made.items() if kind is not None}

    def _leaves(self, config: type, path: str) -> Iterator[tuple[str, Declared, bool]]:
        paths = {field.name for field in dataclasses.fields(config) if field.metadata == PATH}
        for name, declared in field_types(config).items():
            here = f"{path}.{name}" if path else name
            if here in self.classes:
                yield from self._leaves(self.classes[here], here)
            elif isinstance(declared, type) and dataclasses.is_dataclass(declared) and declared not in CHOICES:
                yield from self._leaves(declared, here)
            elif declared not in CHOICES:
                yield here, declared, name in paths


def _choices(name: str) -> Iterator[tuple[str, str | None]]:
    """What the file ``name`` of ``conf`` chooses, other files that it takes in included."""
    for entry in _defaults(name):
        if isinstance(entry, dict):
            ((option, chosen),) = entry.items()
            option = option.removeprefix("override ").removeprefix("/")
            if not option.startswith("hydra/"):
                yield option, chosen
        elif (CONF / Path(name).parent / f"{entry}.yaml").is_file() and entry != "run":
            yield from _choices((Path(name).parent / entry).as_posix())


def _schemas(folder: str, chosen: str) -> Iterator[tuple[str, type]]:
    """The classes that a choice stands for, by their place in it; the choice's own class has the place ``""``."""
    declared = {name: CHOICES[kind] for kind, name in FOLDERS.items()} | {
        name: {name: kind} for name, kind in SINGLE.items()
    }
    for entry in _defaults(f"{folder}/{chosen}"):
        schema = _SCHEMA.fullmatch(entry) if isinstance(entry, str) else None
        if schema is not None:
            kinds, kind, place = schema.groups()
            yield "" if place in ("_here_", folder) else place, declared[kinds][kind]


@cache
def _defaults(name: str) -> list[str | dict[str, str | None]]:
    path = CONF / f"{name}.yaml"
    return (yaml.safe_load(path.read_text()) or {}).get("defaults", []) if path.is_file() else []
