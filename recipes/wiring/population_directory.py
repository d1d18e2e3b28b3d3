"""The directory of a population: its configuration, how far all members are, their exchanges, and their runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject, replacing
from ctde_kit.recipes.configs.data import read_data, to_data, write_data
from ctde_kit.recipes.configs.own_code import code_of, recorded, with_changes
from ctde_kit.recipes.configs.recipe import RecipeConfig

if TYPE_CHECKING:
    from ctde_kit.distributed import Exchange

# Not config.yaml: what reads runs shall find the members' and not take the whole for one.
POPULATION_FILE, VERSION_FILE, EXCHANGES_FILE, MEMBERS = "population.yaml", "version.json", "exchanges.jsonl", "members"
CODE = "code"


@dataclass(frozen=True)
class Version:
    """What all members have: a checkpoint after so many frames.

    Args:
        frames: of each member.
        members: how many there are.
    """

    frames: int
    members: int


@dataclass(frozen=True)
class PopulationDirectory:
    """The directory of a population.

    ``population.yaml`` is its configuration, ``version.json`` says at how many frames all members have a checkpoint,
    ``exchanges.jsonl`` has a line per exchange of critics, ``members/RANK`` is the run directory of each member, and
    ``summary.json`` has the best member's figures and those of all.

    Args:
        path: of the directory.
    """

    path: Path

    @property
    def config(self) -> JsonObject:
        """The configuration as plain data.

        Raises:
            UserError: where there is none, or it is damaged.
        """
        return {name: value for name, value in read_data(self.path / POPULATION_FILE).items() if name != CODE}

    @property
    def code(self) -> JsonObject:
        """What was recorded of the user's own code, by its names in the configuration."""
        return read_data(self.path / POPULATION_FILE).get(CODE, {})

    @property
    def exists(self) -> bool:
        """Whether there is a population."""
        return (self.path / POPULATION_FILE).is_file()

    @property
    def has_version(self) -> bool:
        """Whether there is a checkpoint of all members."""
        return (self.path / VERSION_FILE).is_file()

    @property
    def summary(self) -> Path:
        """The file ``summary.json``."""
        return self.path / "summary.json"

    def member(self, rank: int) -> Path:
        """The run directory of one member."""
        return self.path / MEMBERS / str(rank)

    def member_summary(self, rank: int) -> JsonObject | None:
        """The summary of a member that has ended; ``None`` while it trains."""
        path = self.member(rank) / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def write_config(self, config: RecipeConfig, frames: int = 0) -> None:
        """Write the configuration with which members begin, or go on from ``frames``, and which own code it names."""
        code = with_changes(self.code, code_of(config), frames) if frames else recorded(code_of(config))
        data = to_data(config) | ({CODE: code} if code else {})
        write_data(data, self.path / POPULATION_FILE)

    def version(self, members: int) -> Version | None:
        """What all members have; ``None`` before their first checkpoint.

        Raises:
            UserError: where it is not one of so many members, or where a member lacks the checkpoint.
        """
        path = self.path / VERSION_FILE
        if not path.is_file():
            return None
        version = Version(**json.loads(path.read_text()))
        if version.members != members:
            raise UserError(
                f"{self.path} is a population of {version.members} members, found distributed.members={members}; give "
                "as many"
            )
        for rank in range(members):
            wanted = self.checkpoint(rank, version.frames)
            if self.member_summary(rank) is None and not wanted.is_file():
                raise UserError(f"{wanted}: expected the checkpoint of {version.frames} frames that each member has")
        return version

    def write_version(self, version: Version) -> None:
        """Write at how many frames all members have a checkpoint."""
        with replacing(self.path / VERSION_FILE) as file:
            file.write(json.dumps(vars(version)).encode())

    def checkpoint(self, rank: int, frames: int) -> Path:
        """A member's checkpoint after so many frames."""
        return ck.training.checkpoint_path(self.member(rank) / "checkpoints", frames)

    def go_back(self, version: Version | None, rank: int) -> None:
        """Remove what a member has written after ``version``, or all of it."""
        if version is None:
            shutil.rmtree(self.member(rank), ignore_errors=True)
            return
        for path in ck.training.checkpoint_paths(self.member(rank) / "checkpoints"):
            if ck.training.frames_of(path) > version.frames:
                path.unlink()

    def write_exchange(self, exchange: Exchange) -> None:
        """Append a line to ``exchanges.jsonl``."""
        with open(self.path / EXCHANGES_FILE, "a") as file:
            file.write(json.dumps(exchange.record()) + "\n")

    def exchanges(self) -> list[JsonObject]:
        """The lines of ``exchanges.jsonl``, without one that is torn."""
        path = self.path / EXCHANGES_FILE
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in lines]

    def drop_exchanges(self, version: Version | None) -> int:
        """Drop those after ``version``; returns how many there are then."""
        kept = [] if version is None else [one for one in self.exchanges() if one["frames"] <= version.frames]
        if (self.path / EXCHANGES_FILE).is_file():
            with replacing(self.path / EXCHANGES_FILE) as file:
                file.writelines((json.dumps(one) + "\n").encode() for one in kept)
        return len(kept)

    def frames(self, rank: int) -> int:
        """How many frames a member has collected, by the last line of its ``metrics.csv``."""
        path = self.member(rank) / "metrics.csv"
        try:
            with open(path, "rb") as file:
                file.seek(max(path.stat().st_size - 4096, 0))
                first = file.read().rstrip(b"\n").rpartition(b"\n")[2].partition(b",")[0]
        except OSError:
            return 0
        return int(first) if first.isdigit() else 0

    def clear(self) -> None:
        """Remove a population that has no version."""
        shutil.rmtree(self.path / MEMBERS, ignore_errors=True)
        for name in (POPULATION_FILE, EXCHANGES_FILE):
            (self.path / name).unlink(missing_ok=True)
