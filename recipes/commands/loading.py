"""Finished runs, loaded from their directories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.configs.data import flat_options, from_data, no_run, to_data
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.replays import ReplayConfig
from ctde_kit.recipes.wiring.population_directory import POPULATION_FILE, PopulationDirectory
from ctde_kit.recipes.wiring.saved_runs import SavedRun, as_saved

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

    from ctde_kit import Parts, TeamPolicy


# What may be another one when a run goes on; layouts of `distributed` are compared elsewhere.
MAY_CHANGE = ("total_frames", "device", "compile", "threads", "logger", "distributed.address")
ABSENT = "no such option"


@runtime_checkable
class WithReplay(Protocol):
    """A recipe's configuration that has a replay buffer."""

    replay: ReplayConfig


@dataclass(frozen=True)
class LoadedRun:
    """A run as its last checkpoint left it: its configuration, parts and policy.

    Args:
        config: the recipe's configuration.
        parts: its parts, ``parts.policy`` among them.
        frames: collected so far.

    >>> from ctde_kit.recipes import LoadedRun, MatrixTask, QMIXConfig
    >>> config = QMIXConfig(task=MatrixTask(n_envs=2))
    >>> loaded = LoadedRun(config, config.build(), frames=0)
    >>> loaded.env.rollout(1, loaded.policy)["agents", "action"].shape
    torch.Size([2, 1, 2])
    """

    config: RecipeConfig
    parts: Parts
    frames: int

    @property
    def policy(self) -> TeamPolicy:
        """The policy of all groups; greedy under ``ExplorationType.DETERMINISTIC``, the default outside collectors."""
        policy = self.parts.policy
        assert isinstance(policy, ck.TeamPolicy)
        return policy

    @property
    def env(self) -> EnvBase:
        """The training env, with the transforms that the policy needs."""
        return self.parts.collector.env


def check_resumes(config: RecipeConfig, saved: RecipeConfig, path: Path, expected: str) -> None:
    """Raise ``UserError`` where a run's configuration is another one than it has, but for what may change.

    Args:
        config: with which it is to go on.
        saved: that it has.
        path: of its directory.
        expected: where the user finds the saved one, for errors.
    """
    if config.algorithm != saved.algorithm:
        raise UserError(f"algorithm={config.algorithm!r}: the run in {path} is one of {saved.algorithm!r}; start anew")
    may_change = {name: getattr(saved, name) for name in (option.partition(".")[0] for option in MAY_CHANGE)}
    ours, theirs = (flat_options(to_data(replace(one, **may_change))) for one in (config, saved))
    changed = [name for name in {**theirs, **ours} if ours.get(name, ABSENT) != theirs.get(name, ABSENT)]
    if changed:
        name = changed[0]
        here, there = (repr(one[name]) if name in one else ABSENT for one in (ours, theirs))
        raise UserError(
            f"{name}={here}: the run in {path} has {there}; give {expected}, "
            f"of which only {', '.join(MAY_CHANGE)} may be other ones; or start anew"
        )


def load(run_directory: str | Path, device: str | None = None, *, trust: bool = False) -> LoadedRun:
    """A finished run, loaded from its run directory: ``policy = load("runs/...").policy``.

    It only reads, even while another process writes the run: a replay on disk is loaded into memory. The program's
    random state is left as it was. The policy is in evaluation mode, in which the kit's own networks compute the same
    as in training mode. If layers of your own do not (dropout, for example), call ``policy.train()`` before you go on
    training its parts.

    Args:
        run_directory: as the command line printed it.
        device: where to put it, ``None`` for where the run was.
        trust: whether a user's own code that the run names may be imported and run; no other code ever is.

    Raises:
        UserError: where it holds no configuration or no whole checkpoint, or names code that is not trusted.

    >>> import contextlib, io, tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig, load, start
    >>> run = Path(tempfile.mkdtemp()) / "run"
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     summary = start(QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=10, total_frames=10), run)
    >>> load(run).frames
    10
    """
    directory = Path(run_directory)
    if not directory.is_dir():
        raise no_run(directory, f"run_directory={str(directory)!r}")
    config = read_config(directory)
    # Callbacks belong to the training alone: none is imported.
    SavedRun(directory).check_trust(replace(config, callbacks=[]), trust=trust)
    if device is not None:
        config = replace(config, device=device)
    path = ck.training.latest_checkpoint(directory / "checkpoints")
    content = ck.training.read_checkpoint(path, algorithm=config.algorithm)
    with ck.training.unchanged_random_state():
        parts = _in_memory(as_saved(config, SavedRun(directory))).build()
        frames = ck.training.load_parts(content, parts)
    parts.policy.eval()
    return LoadedRun(config, parts, frames)


def _in_memory(config: RecipeConfig) -> RecipeConfig:
    if not isinstance(config, WithReplay):
        return config
    stored_on = "cpu" if config.replay.stored_on == "disk" else config.replay.stored_on
    return replace(config, replay=replace(config.replay, stored_on=stored_on))


def read_config(directory: Path) -> RecipeConfig:
    """The configuration of a run.

    Raises:
        UserError: where there is none, or it is damaged.
    """
    return _to_config(SavedRun(directory).config, directory / "config.yaml")


def read_population(directory: PopulationDirectory) -> RecipeConfig:
    """The configuration of a population.

    Raises:
        UserError: where there is none, or it is damaged.
    """
    return _to_config(directory.config, directory.path / POPULATION_FILE)


def _to_config(data: JsonObject, path: Path) -> RecipeConfig:
    """The configuration that ``data``, read from the file ``path``, is.

    Raises:
        UserError: where it is none of a recipe.
    """
    algorithm = data.get("algorithm")
    if not isinstance(algorithm, str) or algorithm not in RECIPES:
        raise UserError(f"{path}: expected `algorithm` to be one of {', '.join(RECIPES)}, found {algorithm!r}")
    return from_data(RECIPES[algorithm].config, data, str(path))
