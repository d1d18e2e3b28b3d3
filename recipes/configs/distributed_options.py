"""In which processes a run collects and learns, as configurations."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import PATH, CheckedConfig, check_choice, check_not_negative, check_positive
from ctde_kit.recipes.configs.populations import InPopulation, SyncConfig, check_exchange


@dataclass
class DistributionConfig(CheckedConfig):
    """In which processes a run collects and learns; this is the base of all such configurations."""

    @property
    def n_collectors(self) -> int:
        """How many collectors there are, each with ``task.n_envs`` environments."""
        return 1

    @property
    def delayed(self) -> int:
        """How many iterations behind the weights of a batch are."""
        return 0

    @property
    def n_members(self) -> int:
        """How many whole learners there are."""
        return 1

    @property
    def n_learners(self) -> int:
        """How many learners share every gradient step."""
        return 1

    @property
    def by_agent(self) -> bool:
        """Whether learners share the agents of every batch."""
        return False

    @property
    def n_restarts(self) -> int:
        """How often all learners start again after one was lost."""
        return 0

    @property
    def exchanges_critics(self) -> bool:
        """Whether whole learners take over each other's critics."""
        return False

    def check_recipe(self, config: InPopulation, *, has_critic: bool) -> None:
        """Raise ``UserError`` for a recipe that cannot be distributed so.

        Args:
            config: of the recipe.
            has_critic: whether the recipe has critics.
        """


@dataclass
class OneProcess(DistributionConfig):
    """The run collects and learns in one process.

    >>> from ctde_kit.recipes import MAPPOConfig, OneProcess
    >>> MAPPOConfig().distributed == OneProcess()
    True
    """


@dataclass
class PopulationMember(OneProcess):
    """A run in one process that was a member of a population; kept with the run, for comparisons.

    Args:
        members: how many there were.
        sync: what they exchanged.

    >>> from ctde_kit.recipes.configs.distributed_options import PopulationMember
    >>> PopulationMember(members=4).n_members
    1
    """

    members: int = 1
    sync: SyncConfig = field(default_factory=SyncConfig)


@dataclass
class RayDistribution(DistributionConfig):
    """Processes of a Ray cluster: collectors, learners that share gradient steps, or members, each a whole learner.

    Args:
        address: of the cluster: local to start one on this machine, auto for the one that runs here, or HOST:PORT.
        collectors: how many, each with task.n_envs environments; frames_per_batch counts the frames of all.
        delay: batches collected ahead while this process learns, each with weights that many iterations old.
        learners: how many share every gradient step. By batch, each has task.n_envs environments, a buffer and
            minibatches of its own; frames_per_batch counts the frames of all.
        by: what learners share: batch, of which each has a part, or agent: each learns for some agents of every batch.
        collect: by agent, each learner collects the same batches, or the first sends them to the others.
        members: whole learners, each with a seed and a run directory of its own, of which the best counts.
        sync: what members exchange, and when.
        restarts: how often lost processes are started again, all together, before the run ends.
        timeout: seconds after which a process that gives no sign of life is taken for lost.

    >>> from ctde_kit.recipes import MAPPOConfig, RayDistribution
    >>> MAPPOConfig(distributed=RayDistribution(collectors=4), frames_per_batch=24_000).distributed.n_collectors
    4
    """

    address: str = field(default="local", metadata=PATH)
    collectors: int = 1
    delay: int = 0
    learners: int = 1
    by: str = "batch"
    collect: str = "each"
    members: int = 1
    sync: SyncConfig = field(default_factory=SyncConfig)
    restarts: int = 3
    timeout: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(
            **{
                "distributed.collectors": self.collectors,
                "distributed.learners": self.learners,
                "distributed.members": self.members,
                "distributed.timeout": self.timeout,
            }
        )
        check_not_negative(**{"distributed.delay": self.delay, "distributed.restarts": self.restarts})
        check_choice("distributed.by", self.by, ("batch", "agent"))
        check_choice("distributed.collect", self.collect, ("each", "first"))
        if self.by == "agent" and self.learners == 1:
            raise UserError("distributed.by=agent: one learner has nobody to share with; give distributed.learners=2")
        if self.collect == "first" and self.by == "batch":
            raise UserError(
                "distributed.collect=first: learners that share batches collect each a part of its own; give "
                "distributed.by=agent, or leave it out"
            )
        if self.address not in ("local", "auto") and not self.address.rpartition(":")[2].isdigit():
            raise UserError(f"distributed.address={self.address}: expected local, auto or HOST:PORT")
        alone = {"collectors": self.collectors, "delay": self.delay + 1, "learners": self.learners}
        for name, count in (("members", self.members), ("learners", self.learners)):
            others = [f"distributed.{other}" for other, found in alone.items() if found > 1 and other != name]
            if count > 1 and others:
                raise UserError(
                    f"distributed.{name}={count}: each of them collects and learns in a process of its own; leave out "
                    f"{' and '.join(others)}"
                )

    @property
    def n_collectors(self) -> int:
        return max(self.collectors, 1 if self.by_agent else self.learners)

    @property
    def by_agent(self) -> bool:
        return self.by == "agent"

    @property
    def delayed(self) -> int:
        return self.delay

    @property
    def n_learners(self) -> int:
        return self.learners

    @property
    def n_restarts(self) -> int:
        return self.restarts if self.learners > 1 else 0

    @property
    def n_members(self) -> int:
        return self.members

    @property
    def exchanges_critics(self) -> bool:
        return self.sync.exchanges

    def check_recipe(self, config: InPopulation, *, has_critic: bool) -> None:
        check_exchange(config, self.sync, self.members, has_critic=has_critic)
