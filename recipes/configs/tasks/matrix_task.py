"""Matrix games as tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ctde_kit.recipes.configs.tasks.task import TaskConfig

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

# Climbing, Claus and Boutilier 1998.
CLIMBING = [[11, -30, 0], [-30, 7, 0], [0, 6, 5]]


@dataclass
class MatrixTask(TaskConfig):
    """A cooperative matrix game: all agents choose at once and get the same payoff.

    A game this small is learned in seconds: a recipe has ``total_frames=10_000``, ``frames_per_batch=480`` and
    ``evaluation.every_frames=960`` with it, unless it is given others.

    Args:
        name: of the task.
        n_envs: games in the batch.
        groups_compete: null, since there is one group.
        payoff: the table, lists nested one level per agent; with next_state, a list of such tables, one per state.
        next_state: the state that follows each joint action, -1 where the game ends; null for a game of one step.

    >>> from ctde_kit.recipes import MatrixTask
    >>> env = MatrixTask(n_envs=1, payoff=[[8, 0], [0, 8]]).build(seed=0, device="cpu")
    >>> env.reset()["agents", "observation"].shape
    torch.Size([1, 2, 1])
    """

    run_options: ClassVar[Mapping[str, int]] = {
        "total_frames": 10_000,
        "frames_per_batch": 480,
        "evaluation.every_frames": 960,
    }

    name: str = "matrix/climbing"
    n_envs: int = 16
    payoff: Any = field(default_factory=lambda: CLIMBING)
    next_state: Any = None

    @property
    def episode_steps(self) -> int:
        """Steps of the longest episode: at most one per state, since each step leads to a later one."""
        return 1 if self.next_state is None else len(self.payoff)

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment, ``n_envs`` wide; it draws nothing, so ``seed`` changes nothing."""
        from ctde_kit.envs.games import MatrixGameEnv

        return MatrixGameEnv(n_envs or self.n_envs, self.payoff, self.next_state, device=device)
