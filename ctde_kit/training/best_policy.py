"""The best policy of a run so far, beside its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.protocols import StateDict
from ctde_kit.training.checkpoint import FORMAT, read_checkpoint, write_content

PREFIX = "eval/"
ALL_AGENTS = "eval/return_mean"
CONTENT = ("format", "algorithm", "frames", "metric", "value", "parts")


class BestPolicy:
    """Keeps the policy of the best evaluation in a file, ``best.pt``; of equally good ones the earlier.

    The file holds the policy alone. So keeping it changes nothing in training; a whole checkpoint would, since asking
    for the state of environments that cannot be captured ends their episodes. The file is written when a checkpoint
    is, so that both belong to one history.

    Args:
        path: of the file; its directory exists.
        algorithm: name of the recipe.
        metric: the figure that decides, as ``metrics.csv`` names it; higher is better.

    >>> from pathlib import Path
    >>> import tempfile
    >>> import ctde_kit as ck
    >>> from ctde_kit.training.best_policy import BestPolicy
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=5)
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> best = BestPolicy(Path(tempfile.mkdtemp()) / "best.pt", "random", "eval/return_mean")
    >>> for frames, value in [(600, 0.5), (1200, 0.7), (1800, 0.7)]:
    ...     best.consider(policy, frames, {"return_mean": value})
    >>> best.write()
    >>> best.frames, best.value
    (1200, 0.7)
    """

    def __init__(self, path: Path, algorithm: str, metric: str):
        self.path, self.algorithm, self.metric = path, algorithm, metric
        self.frames, self.value = 0, -math.inf
        self._policy: dict[str, Tensor] | None = None

    @property
    def group_prefix(self) -> str:
        """``GROUP/`` of a metric of one group, else nothing."""
        group, slash, _ = self.metric.removeprefix(PREFIX).partition("/")
        return f"{group}/" if slash else ""

    def consider(self, policy: TensorDictModuleBase, frames: int, evaluation: Mapping[str, float]) -> None:
        """Keep ``policy`` if it is better than any before, by the metrics of its ``evaluation``."""
        value = evaluation[self.metric.removeprefix(PREFIX)]
        # Of figures that are all nan, the first policy is kept.
        if value > self.value or self.frames == 0:
            self.frames, self.value = frames, -math.inf if math.isnan(value) else value
            self._policy = {name: entry.detach().clone() for name, entry in policy.state_dict().items()}

    def write(self) -> None:
        """Write the file, if a better policy than the one in it was found."""
        if self._policy is None:
            return
        content = {"format": FORMAT, "algorithm": self.algorithm, "frames": self.frames}
        write_content(
            self.path, {**content, "metric": self.metric, "value": self.value, "parts": {"policy": self._policy}}
        )
        self._policy = None

    def go_on(self, frames: int) -> None:
        """Go on from a checkpoint at ``frames``; a policy found after it, or by another metric, is dropped."""
        if not self.path.is_file():
            return
        content = self._read()
        if content["frames"] > frames or content["metric"] != self.metric:
            self.path.unlink()
        else:
            self.frames, self.value = content["frames"], content["value"]

    def load(self, policy: TensorDictModuleBase) -> None:
        """Load the weights of the best policy into ``policy``.

        Raises:
            UserError: where none was written.
        """
        policy.load_state_dict(self._read()["parts"]["policy"])

    def _read(self) -> StateDict:
        return read_checkpoint(self.path, algorithm=self.algorithm, keys=CONTENT)


def best_policies(
    directory: Path,
    algorithm: str,
    metric: str,
    groups: list[str],
    groups_compete: bool,
    reported: Sequence[str] = (),
) -> list[BestPolicy]:
    """The ``BestPolicy`` of a run, which keeps the best policy by ``metric`` in ``best.pt``.

    Where groups compete and ``metric`` is the return of all agents, each group has its own, ``best_GROUP.pt``.

    Args:
        directory: of the checkpoints.
        algorithm: name of the recipe.
        metric: as ``metrics.csv`` names it.
        groups: names of the agent groups.
        groups_compete: returns are reported per group only.
        reported: names of the metrics that the env reports, see ``reported_metrics``.

    Raises:
        UserError: for a metric that no evaluation has.

    >>> from pathlib import Path
    >>> from ctde_kit.training import best_policies
    >>> bests = best_policies(Path(), "maddpg", "eval/return_mean", ["adversary", "agent"], groups_compete=True)
    >>> [(best.path.name, best.metric) for best in bests]
    [('best_adversary.pt', 'eval/adversary/return_mean'), ('best_agent.pt', 'eval/agent/return_mean')]
    """
    per_group = [f"{PREFIX}{group}/return_{over}" for group in groups for over in ("mean", "sum")]
    if groups_compete and metric == ALL_AGENTS:
        return [
            BestPolicy(directory / f"best_{group}.pt", algorithm, f"{PREFIX}{group}/return_mean") for group in groups
        ]
    of_all = [] if groups_compete else [ALL_AGENTS, f"{PREFIX}return_sum"]
    known = [*of_all, *per_group, *(f"{PREFIX}{name}" for name in reported)]
    if metric not in known:
        raise UserError(f"metric={metric!r}: expected one of {', '.join(known)}")
    return [BestPolicy(directory / "best.pt", algorithm, metric)]
