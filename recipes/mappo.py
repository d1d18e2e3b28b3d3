"""MAPPO: PPO with a centralized critic; IPPO is the same recipe with a decentralized one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.critics import check_decentralized
from ctde_kit.recipes.configs.ppo import PPOConfig

if TYPE_CHECKING:
    from ctde_kit import Parts


@dataclass(kw_only=True)
class MAPPOConfig(PPOConfig):
    """MAPPO (Yu et al. 2022), IPPO and A2C, as data: ``build`` gives the parts.

    IPPO is ``algorithm="ippo"`` with ``critic=ValueCriticConfig(sees="observation")``, or ``SharedCriticConfig()`` for
    one network that is actor and critic. A2C (Mnih et al. 2016) is ``algorithm="a2c"`` with ``epochs=1`` and
    ``minibatch_frames=None``: there the ratio is always 1, so that the clipped objective has the gradient of A2C.

    >>> from ctde_kit.recipes import MAPPOConfig, VmasTask, iterate
    >>> task = VmasTask("vmas/navigation", n_envs=2, max_steps=5)
    >>> config = MAPPOConfig(task=task, frames_per_batch=20, total_frames=40, minibatch_frames=10, epochs=1)
    >>> [iteration.frames for iteration in iterate(config.build())]
    [20, 40]
    """

    algorithm: str = "mappo"

    def __post_init__(self) -> None:
        self.check_run(("mappo", "ippo", "a2c"))
        self.check_options()
        if self.algorithm == "ippo" and not self.critic.shares_actor:
            check_decentralized("ippo", self.critic)
        if self.algorithm == "a2c" and (self.epochs, self.minibatch_frames) != (1, None):
            raise UserError(
                "algorithm=a2c: expected epochs=1 and minibatch_frames=null, one gradient step per batch, found "
                f"epochs={self.epochs} and minibatch_frames={self.minibatch_frames}; leave them out, or run ctde-mappo"
            )

    def build(self) -> Parts:
        import torch

        wired = wiring.policy_gradient(self, ck.MAPPOLoss)
        losses = list(wired.losses.values())
        optimizer = self.adam(torch.nn.ModuleList(losses).parameters())
        step = ck.GradientStep(wired.losses, optimizer, self.max_grad_norm, compile=wired.compiles_updates)
        averages = wiring.averaging(self.critic, [loss.critic_network for loss in losses], optimizer)
        return wired.parts(
            ck.training.UpdateWithTargets(step, averages) if averages else step,
            ck.training.Epochs(self.epochs, self.target_kl),
            wiring.learning_rate(self, optimizer),
        )
