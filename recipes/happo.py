"""HAPPO: PPO of agents without shared parameters, one after the other in a drawn order, for one team reward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import ctde_kit as ck
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.checks import check_choice, check_part
from ctde_kit.recipes.configs.critics import CriticConfig, ValueCriticConfig, check_one_value
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.ppo import PPOConfig

if TYPE_CHECKING:
    from ctde_kit import Parts


@dataclass(kw_only=True)
class HAPPOConfig(PPOConfig):
    """HAPPO (Kuba et al. 2022), as data: ``build`` gives the parts.

    Each group is a team: its agents share one reward, the mean of their rewards, and one value.

    Args:
        epochs: passes over a batch, of each agent in its turn, and of the critic after them.
        normalize_advantage: joint or none.
        target_kl: end an agent's turn once an epoch's KL exceeds this; null for never.

    >>> from ctde_kit.recipes import HAPPOConfig, VmasTask, iterate
    >>> task = VmasTask("vmas/balance", n_envs=2, max_steps=5)
    >>> config = HAPPOConfig(task=task, frames_per_batch=20, total_frames=40, minibatch_frames=10, epochs=1)
    >>> [iteration.frames for iteration in iterate(config.build())]
    [20, 40]
    """

    shares_gradients: ClassVar[bool] = False

    algorithm: str = "happo"
    actor: NetworkConfig = field(default_factory=lambda: MLPNetwork(share_params=False))
    critic: CriticConfig = field(default_factory=lambda: ValueCriticConfig(heads="one"))

    def __post_init__(self) -> None:
        self.check_run(("happo",))
        self.check_options()
        sharing = self.actor.weight_sharing
        check_part(
            "happo",
            sharing is False,
            expected="actor.share_params=false, a policy of its own for each agent",
            python="actor=MLPNetwork(share_params=False)",
            found=f"{type(self.actor).__name__} with share_params={sharing}",
        )
        check_one_value("happo", self.critic)
        # One advantage per step is the same for each agent.
        check_choice("normalize_advantage", self.normalize_advantage, ("joint", "none"))

    def build(self) -> Parts:
        wired = wiring.policy_gradient(self, ck.objectives.HAPPOLoss, of_team=True)
        compiles = wired.compiles_updates
        update = ck.training.SequentialUpdate(wired.losses, self.adam, self.max_grad_norm, compile=compiles)
        return wired.parts(
            update,
            ck.training.SequentialEpochs(self.epochs, self.target_kl),
            ck.training.Annealing(*(wiring.learning_rate(self, step.optimizer) for step in update.gradient_steps)),
        )
