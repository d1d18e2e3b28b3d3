"""Exploration noise of deterministic actors."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.data import Unbounded
from torchrl.envs import TensorDictPrimer

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, next_key
from ctde_kit.modules.actors.action_vectors import gumbel_like
from ctde_kit.specs import GroupSpec


class GaussianNoise(nn.Module):
    """Adds to each agent's continuous action a Gaussian of deviation ``scale``, in halves of the action's range.

    ``scale`` is a buffer, which a schedule moves. TorchRL's ``AdditiveGaussianModule`` anneals by a Python loop over
    the frames and takes one deviation for actions of all ranges.

    Args:
        group: the group's spec.
        scale: at the beginning, 0 for none.

    Raises:
        UserError: for discrete actions.
    """

    scale: Tensor
    half_range: Tensor

    def __init__(self, group: GroupSpec, scale: float):
        super().__init__()
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("half_range", _half_range(group), persistent=False)

    def forward(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """``action`` ``[*B, n_agents, D]`` and the noise, which may lead out of bounds."""
        return action + self.scale * self.half_range * _randn(action)


class OrnsteinUhlenbeckNoise(nn.Module):
    """Adds a process that is correlated over the steps of an episode (Lillicrap et al. 2016, section 3).

    ``x' = x - theta x dt + sigma sqrt(dt) N(0, 1)``, an x for each action of each agent, and ``scale x'`` is added, in
    halves of the action's range. Reads ``is_init`` and ``(group, "noise")`` ``[*B, n_agents, D]``, which is zero at an
    episode's start; writes the state it used there, and the next one under ``next``: so the state is where the env's
    is, in checkpoints of the collector, and each env has its own. TorchRL's ``OrnsteinUhlenbeckProcessModule`` keeps it
    under keys with a leading underscore, which collectors drop, and under one name for all groups.

    Args:
        group: the group's spec.
        scale: at the beginning, 0 for none; a buffer, which a schedule moves.
        theta: how fast it returns to zero, 1 / step.
        sigma: its deviation, 1 / sqrt(step).
        dt: of a step.

    Raises:
        UserError: for discrete actions; where ``is_init`` or the state is missing.
    """

    scale: Tensor
    half_range: Tensor

    def __init__(self, group: GroupSpec, scale: float, *, theta: float = 0.15, sigma: float = 0.2, dt: float = 1.0):
        super().__init__()
        self.group, self.theta, self.sigma, self.dt = group, theta, sigma, dt
        self.in_keys = [group.keys.noise, IS_INIT]
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("half_range", _half_range(group), persistent=False)

    def forward(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """``action`` ``[*B, n_agents, D]`` and the noise, which may lead out of bounds."""
        key = self.group.keys.noise
        state, is_init = tensordict.get(key, None), tensordict.get(IS_INIT, None)
        if state is None or is_init is None:
            raise UserError(
                f"key {IS_INIT if is_init is None else key!r} is missing: append torchrl.envs.InitTracker() and the "
                "noise's make_tensordict_primer() to the env"
            )
        state = state.masked_fill(is_init.unsqueeze(-1), 0)
        step = self.sigma * math.sqrt(self.dt) * _randn(action)
        following = state - self.theta * self.dt * state + step
        tensordict.set(key, state)
        tensordict.set(next_key(key), following)
        return action + self.scale * self.half_range * following

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the state."""
        group = self.group
        shape = torch.Size((group.n_agents, group.action.vector_dim))
        return TensorDictPrimer({group.keys.noise: Unbounded(shape)}, expand_specs=True, reset_key="_reset")


class GumbelNoise(nn.Module):
    """Adds Gumbel noise to the logits of discrete actions: at ``scale`` 1 the best of both is a sample of their
    softmax.

    Args:
        group: the group's spec.
        scale: at the beginning, 0 for none; a buffer, which a schedule moves.

    Raises:
        UserError: for continuous actions.
    """

    scale: Tensor

    def __init__(self, group: GroupSpec, scale: float = 1.0):
        super().__init__()
        if not group.action.discrete:
            raise UserError(
                f"Gumbel noise: the actions of group {group.name!r} are continuous; use Gaussian noise "
                "(exploration=gaussian) or task.continuous_actions=false"
            )
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, tensordict: TensorDictBase, logits: Tensor) -> Tensor:
        """``logits`` ``[*B, n_agents, N]`` and the noise."""
        return logits + self.scale * gumbel_like(logits)


def _half_range(group: GroupSpec) -> Tensor:
    if group.action.discrete:
        raise UserError(
            f"Gaussian and Ornstein-Uhlenbeck noise: the actions of group {group.name!r} are discrete; use Gumbel "
            "noise (exploration=gumbel)"
        )
    return (torch.tensor(group.action.high) - torch.tensor(group.action.low)) / 2


def _randn(like: Tensor) -> Tensor:
    """Not ``randn_like``: it keeps strides, and a graph would draw the same numbers in another order."""
    return torch.randn(like.shape, dtype=like.dtype, device=like.device)
