"""Target policy smoothing (TD3, MATD3): clipped noise on the next actions that target critics value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.specs import ActionSpec


@dataclass(frozen=True)
class TargetPolicySmoothing:
    """TD3's noise on target actors' next actions, so that similar actions get similar targets.

    Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods", section 5.3, for each agent
    of a group (Ackermann et al. 2019, MATD3): ``clip(mu'(o') + clip(noise, -limit, limit), low, high)``. Only for
    continuous actions.

    Args:
        deviation: the standard deviation of the Gaussian noise, in units of half the action's range.
        limit: the noise's largest absolute value, in the same units.

    Raises:
        UserError: for a negative deviation or limit.

    >>> import ctde_kit as ck
    >>> from ctde_kit.objectives import TargetPolicySmoothing
    >>> env = ck.VmasEnv("navigation", num_envs=2)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.vector_dim, group.n_agents)
    >>> actors = {"agents": ck.MultiAgentDeterministicActor(group, ck.own_observation(group), network)}
    >>> critics, twins = ({"agents": ck.action_value_critic(team, group, ck.MultiAgentMLP)} for _ in range(2))
    >>> loss = ck.MADDPGLoss(actors, critics, gamma=0.9, twin_critics=twins, smoothing=TargetPolicySmoothing())
    >>> loss(env.rollout(3, actors["agents"]))["loss_value"].shape
    torch.Size([])
    """

    deviation: float = 0.2
    limit: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("deviation", self.deviation), ("limit", self.limit)):
            if value < 0:
                raise UserError(f"TargetPolicySmoothing: {name}={value}: expected 0 or more")

    def __call__(self, spec: ActionSpec, action: Tensor) -> Tensor:
        """``action`` ``[*B, n_agents, D]`` with noise, within the bounds of ``spec``."""
        low, high = (torch.tensor(bound, dtype=action.dtype, device=action.device) for bound in (spec.low, spec.high))
        # Not `randn_like`: it keeps strides, so a graph would draw the numbers in another order.
        noise = torch.randn(action.shape, dtype=action.dtype, device=action.device)
        noise = (self.deviation * noise).clamp(-self.limit, self.limit) * (high - low) / 2
        return torch.minimum(torch.maximum(action + noise, low), high)
