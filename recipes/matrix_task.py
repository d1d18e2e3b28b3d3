"""Matrix games as configurations that build their environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctde_kit.recipes.checks import check_positive
from omegaconf import MISSING
from torchrl.envs import EnvBase


@dataclass
class MatrixTask:
    """A cooperative matrix game.

    Args:
        name: of the task.
        payoff: the table, a list an agent deep; with next_state, one table a state.
        next_state: the state that follows each joint action, -1 where the game ends; null for a game of one step.
        n_envs: games in the batch.
        groups_compete: there is one group.
    """

    name: str = "matrix/game"
    payoff: Any = MISSING
    next_state: Any = None
    n_envs: int = 16
    groups_compete: bool = False
    _target_: str = "ctde_kit.recipes.matrix_task.MatrixTask"

    def __post_init__(self) -> None:
        check_positive(**{"task.n_envs": self.n_envs})

    @property
    def max_steps(self) -> int:
        """The longest a game can take: each step leads to a later state."""
        return 1 if self.next_state is None else len(self.payoff)

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment, ``n_envs`` wide; it draws nothing, so ``seed`` changes nothing."""
        from ctde_kit.envs.games import MatrixGameEnv

        return MatrixGameEnv(n_envs or self.n_envs, self.payoff, self.next_state, device=device)

    def renderer(self, env: EnvBase) -> None:
        """There is nothing to draw."""
        return None

    def evaluation_envs(self, episodes: int) -> int:
        """All episodes side by side."""
        return episodes
