"""What a run does as a member of a population: it scores its policy, and exchanges critics with the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torchrl.envs import EnvBase

from ctde_kit.distributed import CriticExchange, Meetings, SyncSchedule
from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.modules import TeamPolicy
from ctde_kit.recipes.configs.distributed_options import PopulationMember
from ctde_kit.recipes.configs.populations import SyncConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.compiling import compile_steps
from ctde_kit.recipes.wiring.devices import resolve_device
from ctde_kit.recipes.wiring.evaluating import SCORING_SEED
from ctde_kit.recipes.wiring.setting import compile_option
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import Parts, evaluate, unchanged_random_state
from ctde_kit.training.best_policy import ALL_AGENTS, PREFIX
from ctde_kit.training.callbacks import OnIteration

# The name of the callback whose state is in a member's checkpoints.
EXCHANGE = "exchange"
SELECTION = "selection/"


class Member:
    """A member of a population, for ``start`` and ``resume``.

    Args:
        config: of the member's run.
        seed: of the population, which decides in what episodes policies are scored.
        sync: what is exchanged, and when.
        meetings: where it meets the other members.
    """

    def __init__(self, config: RecipeConfig, seed: int, sync: SyncConfig, meetings: Meetings) -> None:
        self.config, self.seed, self.sync, self.meetings = config, seed, sync, meetings
        self.callbacks: Mapping[str, OnIteration] = {}
        self._scoring: EnvBase | None = None
        if sync.exchanges:
            schedule = SyncSchedule(
                sync.every,
                config.total_frames,
                end_every=sync.end_every,
                unit=sync.unit,  # pyright: ignore[reportArgumentType]  # a checked choice
            )
            exchange = CriticExchange(
                meetings,
                schedule,
                self._score,
                self._judged,
                moments=sync.moments,  # pyright: ignore[reportArgumentType]  # a checked choice
            )
            self.callbacks = {EXCHANGE: exchange}

    def saved(self, frames: int) -> None:
        """Wait until all members have written this checkpoint."""
        self.meetings.saved(frames)

    def conclude(self, parts: Parts) -> JsonObject:
        """The figures by which the best member is chosen in the end, of as many episodes as an evaluation has."""
        if self._scoring is not None:
            self._scoring.close()
        env = self._env(parts, self.config.evaluation.episodes, scores=1)
        try:
            figures = self._figures(env, parts, self.config.evaluation.episodes)
        finally:
            env.close()
        return {f"{SELECTION}{name}": figures[name] for name in self._judged(parts)}

    def _judged(self, parts: Parts) -> dict[str, list[str]]:
        return judged(self.config, list(_policy(parts).learners))

    def _score(self, parts: Parts) -> dict[str, float]:
        if self._scoring is None:
            self._scoring = self._env(parts, self.sync.episodes, scores=self._most_exchanges)
        figures = self._figures(self._scoring, parts, self.sync.episodes)
        return {name: figures[name] for name in self._judged(parts)}

    @property
    def _most_exchanges(self) -> int:
        """How many exchanges there can be: at most one per iteration."""
        frames = self.config.frames_per_batch
        if self.sync.unit == "frames":
            frames = max(frames, min(self.sync.every, self.sync.end_every or self.sync.every))
        return self.config.total_frames // frames

    def _env(self, parts: Parts, episodes: int, *, scores: int) -> EnvBase:
        """An env whose episodes are the same for all members; building it changes nothing that training draws.

        Args:
            parts: of the run.
            episodes: of each score.
            scores: how many there will be; where that is many steps, they are compiled.
        """
        task = self.config.task
        with unchanged_random_state():
            env = task.build_evaluation(
                seed=self._episodes_seed, device=resolve_device(self.config.device), episodes=episodes
            )
            episodes_per_env = -(-episodes // env.batch_size[0])
            steps = scores * episodes_per_env * (task.episode_steps or 0)
            compile_steps(env, compile_option(self.config), steps)
            return with_transforms(env, TeamSpec.from_env(parts.collector.env), _policy(parts))

    def _figures(self, env: EnvBase, parts: Parts, episodes: int) -> dict[str, float]:
        groups = [group.name for group in TeamSpec.from_env(parts.collector.env)]
        returns = evaluate(env, parts.policy, groups, episodes=episodes, seed=self._episodes_seed)
        return returns.metrics(bool(self.config.task.groups_compete))

    @property
    def _episodes_seed(self) -> int:
        return SCORING_SEED + self.seed


def run_name(config: RecipeConfig, path: Path) -> str:
    """The name of the run in ``path`` for loggers; a member's directory is called by its rank alone."""
    is_member = isinstance(config.distributed, PopulationMember)
    return f"{path.absolute().parents[1].name}_member_{path.name}" if is_member else path.name


def judged(config: RecipeConfig, learning: list[str]) -> dict[str, list[str]]:
    """By the figure that decides which member is the best, the groups whose critics it gives to the others.

    The figure is ``checkpoint.metric``. Where groups compete, each group that learns has its own figure and its own
    best member, or with the figure of one group it alone.

    Args:
        config: of the run.
        learning: the groups that learn.

    Raises:
        UserError: for the figure of a group that does not learn.
    """
    figure = config.checkpoint.metric.removeprefix(PREFIX)
    if not config.task.groups_compete:
        return {figure: learning}
    if config.checkpoint.metric == ALL_AGENTS:
        return {f"{group}/return_mean": [group] for group in learning}
    group = figure.partition("/")[0]
    if group not in learning:
        raise UserError(
            f"checkpoint.metric={config.checkpoint.metric}: it decides which member is best; expected a figure of a "
            f"group that learns ({', '.join(learning)})"
        )
    return {figure: [group]}


def _policy(parts: Parts) -> TeamPolicy:
    assert isinstance(parts.policy, TeamPolicy)
    return parts.policy
