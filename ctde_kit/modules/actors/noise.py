"""Exploration noise for deterministic actors: Gaussian, Ornstein-Uhlenbeck, and Gumbel for discrete actions."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Unbounded
from torchrl.envs import TensorDictPrimer

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, next_key
from ctde_kit.modules.actors.action_vectors import gumbel_like
from ctde_kit.modules.networks.primer import primer
from ctde_kit.specs import GroupSpec


class ActionNoise(Protocol):
    """What a deterministic actor uses of its noise."""

    in_keys: list[NestedKey]

    def __call__(self, tensordict: TensorDictBase, action: Tensor, /) -> Tensor:
        """``action`` ``[*B, n_agents, D]``, or logits, plus noise."""
        ...


class GaussianNoise(nn.Module):
    """Adds Gaussian noise to continuous actions; its standard deviation is ``scale`` times half the action's range.

    ``scale`` is a buffer, which a schedule may change. TorchRL's ``AdditiveGaussianModule`` anneals by a Python loop
    over the frames and has one standard deviation for actions of all ranges.

    Args:
        group: the group's spec.
        scale: the initial scale; 0 is no noise.

    Raises:
        UserError: for discrete actions.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import GaussianNoise
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> low, high = ((-1.0,), (-1.0,)), ((1.0,), (3.0,))
    >>> noise = GaussianNoise(GroupSpec("agents", 2, 5, ActionSpec("continuous", (1,), low, high)), scale=0.1)
    >>> noise(TensorDict({}, [4]), torch.zeros(4, 2, 1)).shape
    torch.Size([4, 2, 1])
    """

    scale: Tensor
    half_range: Tensor

    def __init__(self, group: GroupSpec, scale: float):
        super().__init__()
        self.in_keys: list[NestedKey] = []
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("half_range", _half_range(group), persistent=False)

    def forward(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """``action`` ``[*B, n_agents, D]`` plus noise; the sum may be out of bounds."""
        return action + self.scale * self.half_range * _randn(action)


class OrnsteinUhlenbeckNoise(nn.Module):
    """Adds noise that is correlated over the steps of an episode (Lillicrap et al. 2016, section 3).

    ``x' = x - theta x dt + sigma sqrt(dt) N(0, 1)``, with one x per action dimension of each agent; it adds
    ``scale x'`` times half the action's range. Reads ``is_init`` and its state ``(group, "noise")``
    ``[*B, n_agents, D]``, which is zero at an episode's start. Writes back the state that it used, and the next one
    under ``next``. So each env has its own state, which the collector's checkpoints save with the env's. TorchRL's
    ``OrnsteinUhlenbeckProcessModule`` keeps it under keys with a leading underscore, which collectors drop, and under
    one name for all groups.

    Args:
        group: the group's spec.
        scale: the initial scale; 0 is no noise. It is a buffer, which a schedule may change.
        theta: how fast the noise returns to zero, per unit of time.
        sigma: the noise's strength, per square root of a unit of time.
        dt: duration of a step.

    Raises:
        UserError: for discrete actions; where ``is_init`` or the state is missing.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import OrnsteinUhlenbeckNoise
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> low, high = ((-1.0,), (-1.0,)), ((1.0,), (3.0,))
    >>> noise = OrnsteinUhlenbeckNoise(GroupSpec("agents", 2, 5, ActionSpec("continuous", (1,), low, high)), scale=0.1)
    >>> data = TensorDict({"agents": {"noise": torch.zeros(4, 2, 1)}, "is_init": torch.ones(4, 1).bool()}, [4])
    >>> noise(data, torch.zeros(4, 2, 1)).shape
    torch.Size([4, 2, 1])
    """

    scale: Tensor
    half_range: Tensor

    def __init__(self, group: GroupSpec, scale: float, *, theta: float = 0.15, sigma: float = 0.2, dt: float = 1.0):
        super().__init__()
        self.group, self.theta, self.sigma, self.dt = group, theta, sigma, dt
        self.in_keys: list[NestedKey] = [group.keys.noise, IS_INIT]
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("half_range", _half_range(group), persistent=False)

    def forward(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """``action`` ``[*B, n_agents, D]`` plus noise; the sum may be out of bounds."""
        key = self.group.keys.noise
        state, is_init = tensordict.get(key, None), tensordict.get(IS_INIT, None)
        if state is None or is_init is None:
            raise UserError(
                f"key {IS_INIT if is_init is None else key!r} is missing: append torchrl.envs.InitTracker() and the "
                "noise's make_tensordict_primer() to the env"
            )
        state = state.masked_fill(is_init.unsqueeze(-1), 0)
        step = self.sigma * math.sqrt(self.dt) * _randn(action)
        next_state = state - self.theta * self.dt * state + step
        tensordict.set(key, state)
        tensordict.set(next_key(key), next_state)
        return action + self.scale * self.half_range * next_state

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the state."""
        group = self.group
        shape = torch.Size((group.n_agents, group.action.vector_dim))
        return primer({group.keys.noise: Unbounded(shape)})


class GumbelNoise(nn.Module):
    """Adds Gumbel noise to the logits of discrete actions.

    At ``scale`` 1 the argmax of the sum is a sample of the logits' softmax.

    Args:
        group: the group's spec.
        scale: the initial scale; 0 is no noise. It is a buffer, which a schedule may change.

    Raises:
        UserError: for continuous actions.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import GumbelNoise
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> noise = GumbelNoise(GroupSpec("agents", 2, 5, ActionSpec("categorical", (3,))))
    >>> noise(TensorDict({}, [4]), torch.zeros(4, 2, 3)).shape
    torch.Size([4, 2, 3])
    """

    scale: Tensor

    def __init__(self, group: GroupSpec, scale: float = 1.0):
        super().__init__()
        self.in_keys: list[NestedKey] = []
        if not group.action.discrete:
            raise UserError(
                f"GumbelNoise: the actions of group {group.name!r} are continuous; use GaussianNoise, or an env with "
                "discrete actions"
            )
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, tensordict: TensorDictBase, logits: Tensor) -> Tensor:
        """``logits`` ``[*B, n_agents, N]`` plus noise."""
        return logits + self.scale * gumbel_like(logits)


def _half_range(group: GroupSpec) -> Tensor:
    if group.action.discrete:
        raise UserError(
            f"GaussianNoise and OrnsteinUhlenbeckNoise: the actions of group {group.name!r} are discrete; use "
            "GumbelNoise"
        )
    return (torch.tensor(group.action.high) - torch.tensor(group.action.low)) / 2


def _randn(like: Tensor) -> Tensor:
    """Standard Gaussian noise; ``randn_like`` keeps strides, so a graph would draw the numbers in another order."""
    return torch.randn(like.shape, dtype=like.dtype, device=like.device)
