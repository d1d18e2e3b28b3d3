"""In which processes a run collects, as configurations."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import PATH, CheckedConfig, check_not_negative, check_positive


@dataclass
class DistributionConfig(CheckedConfig):
    """In which processes a run collects; this is the base of all such configurations."""

    @property
    def n_collectors(self) -> int:
        """How many collectors there are, each with ``task.n_envs`` environments."""
        return 1

    @property
    def delayed(self) -> int:
        """How many iterations behind the weights of a batch are."""
        return 0


@dataclass
class OneProcess(DistributionConfig):
    """The run collects and learns in one process.

    >>> from ctde_kit.recipes import MAPPOConfig, OneProcess
    >>> MAPPOConfig().distributed == OneProcess()
    True
    """


@dataclass
class RayDistribution(DistributionConfig):
    """Collectors in processes of a Ray cluster, while the run's own process learns.

    Args:
        address: of the cluster: local to start one on this machine, auto for the one that runs here, or HOST:PORT.
        collectors: how many, each with task.n_envs environments; frames_per_batch counts the frames of all.
        delay: batches collected ahead while this process learns, each with weights that many iterations old.
        restarts: how often lost processes are started again, all together, before the run ends.
        timeout: seconds after which a process that gives no sign of life is taken for lost.

    >>> from ctde_kit.recipes import MAPPOConfig, RayDistribution
    >>> MAPPOConfig(distributed=RayDistribution(collectors=4), frames_per_batch=24_000).distributed.n_collectors
    4
    """

    address: str = field(default="local", metadata=PATH)
    collectors: int = 1
    delay: int = 0
    restarts: int = 3
    timeout: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"distributed.collectors": self.collectors, "distributed.timeout": self.timeout})
        check_not_negative(**{"distributed.delay": self.delay, "distributed.restarts": self.restarts})
        if self.address not in ("local", "auto") and not self.address.rpartition(":")[2].isdigit():
            raise UserError(f"distributed.address={self.address}: expected local, auto or HOST:PORT")

    @property
    def n_collectors(self) -> int:
        return self.collectors

    @property
    def delayed(self) -> int:
        return self.delay
