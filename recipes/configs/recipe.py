"""The options that all recipes have, and the base of their configurations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import PATH, CheckedConfig, check_choice, check_positive, check_types
from ctde_kit.recipes.configs.distributed_options import DistributionConfig, OneProcess
from ctde_kit.recipes.configs.loggers import LoggerConfig
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.opponents import OpponentConfig
from ctde_kit.recipes.configs.own_callbacks import check_names, source
from ctde_kit.recipes.configs.own_modules import with_absolute_file
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.configs.tasks.vmas_task import VmasTask

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import DataclassInstance

    from ctde_kit import Parts
    from ctde_kit.recipes.configs.actors import ActorConfig


@dataclass
class EvaluationConfig(CheckedConfig):
    """How often and how long the greedy policy is evaluated, in an environment and with seeds of its own.

    Args:
        every_frames: how far apart, in frames.
        episodes: how many each time.
        absolute: at the end evaluate the best policy with ten times the episodes, too.

    >>> from ctde_kit.recipes import EvaluationConfig, MAPPOConfig
    >>> config = MAPPOConfig(evaluation=EvaluationConfig(every_frames=60_000, episodes=50))
    >>> config.evaluation.episodes
    50
    """

    every_frames: int = 20_000
    episodes: int = 200
    absolute: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"evaluation.every_frames": self.every_frames, "evaluation.episodes": self.episodes})


@dataclass
class CheckpointConfig(CheckedConfig):
    """How often a run writes a checkpoint into its directory.

    Args:
        every_frames: how far apart, in frames.
        metric: the figure that decides which evaluated policy is kept as best.pt: that with the highest. Where groups
            compete, the default keeps one policy per group, by its own mean return, as best_GROUP.pt.

    >>> from ctde_kit.recipes import CheckpointConfig, MAPPOConfig
    >>> config = MAPPOConfig(checkpoint=CheckpointConfig(every_frames=60_000))
    >>> config.checkpoint.every_frames
    60000
    """

    every_frames: int = 20_000
    metric: str = "eval/return_mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"checkpoint.every_frames": self.every_frames})
        if not self.metric.startswith("eval/"):
            raise UserError(f"checkpoint.metric={self.metric}: expected a figure of evaluations (eval/return_mean)")


def default_task() -> TaskConfig:
    """The task of every recipe's plain command."""
    return VmasTask("vmas/navigation", params={"n_agents": 3, "shared_rew": False})


@dataclass(kw_only=True)
class RecipeConfig(CheckedConfig):
    """A run of a recipe, as data; this is the base of all recipes' configurations.

    Args:
        algorithm: the recipe's name.
        task: what to learn; small games have other defaults of total_frames and the like.
        actor: the actors' network.
        logger: where metrics go beside metrics.csv.
        distributed: none for one process, ray for collectors or whole learners in processes of a Ray
            cluster.
        opponents: by group, who acts for it without learning: a run directory, random, zero, heuristic, greedy_chase.
        initial: by group, the run directory whose policy it goes on from; critics and optimizers start anew.
        normalize_observations: networks read observations and states normalized by their running mean and deviation.
        normalize_rewards: losses read rewards divided by the running deviation of discounted returns; logged and
            evaluated returns are the task's own.
        seed: of everything that is random.
        device: auto, cpu or cuda.
        compile: rollouts and updates as compiled graphs: on, off, or auto (in a run that is long enough and has no
            callbacks).
        threads: of the CPU that torch computes with; null for OMP_NUM_THREADS or, without it, one per core.
        total_frames: env transitions to collect.
        frames_per_batch: frames per iteration, a multiple of task.n_envs (of all collectors, where there are several).
        evaluation: greedy evaluation, how often and how long.
        checkpoint: how often.
        video: write a GIF of a greedy episode at the end.
        callbacks: functions of your own, each MODULE:FUNCTION or FILE.py:FUNCTION, called with (parts, iteration, row)
            after each iteration; one that returns True ends the run.

    >>> from ctde_kit.recipes import MAPPOConfig, RecipeConfig
    >>> config = MAPPOConfig(total_frames=60_000)
    >>> isinstance(config, RecipeConfig), config.seed, config.task.name
    (True, 0, 'vmas/navigation')
    """

    # The kind of action that its policies need, where a task offers both; none for the task's own.
    continuous: ClassVar[bool | None] = None
    # Whether it may learn from batches that policies some iterations older have collected.
    learns_from_older: ClassVar[bool] = True
    # Whether several learners may share its gradient steps.
    shares_gradients: ClassVar[bool] = True
    # Names of the options that an object was made with.
    _given: ClassVar[frozenset[str]] = frozenset()

    algorithm: str = ""
    task: TaskConfig = field(default_factory=default_task)
    actor: NetworkConfig = field(default_factory=MLPNetwork)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    distributed: DistributionConfig = field(default_factory=OneProcess)
    opponents: dict[str, OpponentConfig] = field(default_factory=dict)
    initial: dict[str, str] = field(default_factory=dict, metadata=PATH)
    normalize_observations: bool = False
    normalize_rewards: bool = False
    seed: int = 0
    device: str = "auto"
    compile: str = "auto"
    threads: int | None = None
    total_frames: int = 300_000
    frames_per_batch: int = 6_000
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    video: bool = False
    callbacks: list[str] = field(default_factory=list)

    def __new__(cls, *args: object, **given: object) -> Self:
        """Notes which options are given: a task may have other defaults for the rest."""
        self = super().__new__(cls, *args, **given)
        object.__setattr__(self, "_given", frozenset(given))
        return self

    def __setattr__(self, name: str, value: object) -> None:
        """Set an option; a task gets the kind of action that the recipe needs, and a callback's file its whole path."""
        if name == "task" and isinstance(value, TaskConfig):
            value = value.with_actions(continuous=self.continuous)
        if name == "callbacks" and isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = [with_absolute_file(one) for one in value]
        super().__setattr__(name, value)

    def build(self) -> Parts:
        """The recipe's parts, wired: ``for iteration in iterate(config.build())`` trains."""
        raise NotImplementedError

    def policy(self) -> ActorConfig:
        """How the actor of a group that learns is built."""
        raise NotImplementedError

    @property
    def learns_by_agent(self) -> bool:
        """Whether its losses are sums over agents, which several learners may share."""
        return False

    def own_code(self) -> dict[str, Path]:
        """The modules of the callbacks."""
        return {name: source(name) for name in self.callbacks}

    def check_run(self, algorithms: tuple[str, ...]) -> None:
        """Check what all recipes have.

        Raises:
            UserError: naming the option.
        """
        check_types(self)
        self._take_options_of_task()
        check_choice("algorithm", self.algorithm, algorithms)
        check_names(self.callbacks)
        check_choice("device", self.device, ("auto", "cpu", "cuda"))
        check_choice("compile", self.compile, ("auto", "on", "off"))
        check_positive(total_frames=self.total_frames, frames_per_batch=self.frames_per_batch, threads=self.threads)
        if self.distributed.delayed and not self.learns_from_older:
            raise UserError(
                f"distributed.delay={self.distributed.delayed}: {self.algorithm} learns only from what its current "
                "policy has collected; leave it out"
            )
        if self.distributed.n_learners > 1 and not self.shares_gradients:
            raise UserError(
                f"distributed.learners={self.distributed.n_learners}: the agents of {self.algorithm} learn in an order "
                "that each learner would draw for itself; use distributed.collectors or distributed.members instead"
            )
        if self.distributed.by_agent and not self.learns_by_agent:
            raise UserError(
                f"distributed.by=agent: {self.algorithm} learns something for all agents together; expected maddpg or "
                "iddpg without mixer and infer_policies, or masac or isac without mutual_information; use "
                "distributed.by=batch"
            )
        self.distributed.check_recipe(self, has_critic=has_field(type(self), "critic"))
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: expected 0 to {2**32 - 1}")

    def _take_options_of_task(self) -> None:
        for path, value in self.task.run_options.items():
            name, _, inside = path.partition(".")
            if name not in self._given:
                setattr(self, name, replace(getattr(self, name), **{inside: value}) if inside else value)


def has_field(config: type[DataclassInstance], name: str) -> bool:
    """Whether a configuration has the option ``name``."""
    return name in config.__dataclass_fields__
