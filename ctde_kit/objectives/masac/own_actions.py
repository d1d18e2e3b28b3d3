"""The actions over which the expectation of an agent's policy is taken: one sample, or every choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.distributions import Distribution

from ctde_kit.keys import GroupKeys
from ctde_kit.objectives.maddpg.joint_actions import own_action_values, zero_dead
from ctde_kit.protocols import SamplesUnsquashed
from ctde_kit.specs import ActionSpec, one_hot


@dataclass(frozen=True)
class OwnActions:
    """K actions of each agent; weighted by their probabilities, they give the expectation over its policy.

    Args:
        vector: the actions as vectors, ``[K, *B, n_agents, D]``.
        probability: of each action, ``[K, *B, n_agents, 1]``; over K they sum to 1.
        log_prob: the logarithm of each action's probability, same shape; 0 where an action is impossible. For
            continuous actions it is that of the density, with actions measured in units of half their range.
        unsquashed: continuous actions before they were squashed into their range, same shape as ``vector``; ``None``
            where the distribution has no such values.
    """

    vector: Tensor
    probability: Tensor
    log_prob: Tensor
    unsquashed: Tensor | None = None

    def mean(self, x: Tensor) -> Tensor:
        """The expectation ``[*B, n_agents, 1]`` of ``x`` ``[K, *B, n_agents, 1]``."""
        return (self.probability * x).sum(0)

    @property
    def entropy(self) -> Tensor:
        """The policy's entropy ``[*B, n_agents, 1]``, exact or from one sample."""
        return -self.mean(self.log_prob)

    def values(
        self, critic: TensorDictModuleBase, keys: GroupKeys, tensordict: TensorDictBase, alive: Tensor | None
    ) -> Tensor:
        """Each agent's values ``[K, *B, n_agents, 1]`` when it alone takes each of its K actions.

        A dead agent's actions are set to 0.
        """
        return own_action_values(critic, keys, tensordict, zero_dead(self.vector, alive))


def own_actions(spec: ActionSpec, dist: Distribution) -> OwnActions:
    """The actions for an expectation over ``dist``, batch ``[*B, n_agents]``.

    For continuous actions it is one reparameterized sample (Haarnoja et al. 2018, section 4.2); for discrete ones, all
    combinations of all choices (Christodoulou 2019, section 4).
    """
    if not spec.discrete:
        action, log_prob, x = _reparameterized(dist)
        log_prob = (log_prob + _log_half_range(spec, log_prob)).unsqueeze(-1).unsqueeze(0)
        unsquashed = None if x is None else x.unsqueeze(0)
        return OwnActions(action.unsqueeze(0), torch.ones_like(log_prob), log_prob, unsquashed)
    choices: Any = [torch.arange(size, device=_device(dist)) for size in spec.sizes]
    index = torch.cartesian_prod(*choices).reshape(-1, len(spec.sizes))
    action = _as_action(spec, index)
    batch = [1] * len(dist.batch_shape)
    log_prob = dist.log_prob(action.reshape(len(index), *batch, *action.shape[1:])).unsqueeze(-1)
    probability = log_prob.exp()
    # A forbidden choice has probability 0 and a hugely negative logarithm.
    log_prob = log_prob.masked_fill(probability == 0, 0)
    vector = spec.vector(action).reshape(len(index), *batch, -1).expand(*log_prob.shape[:-1], -1)
    return OwnActions(vector, probability, log_prob)


def sampled_vector(spec: ActionSpec, dist: Distribution, own: OwnActions) -> Tensor:
    """One action of each agent, drawn from its policy, as a vector ``[*B, n_agents, D]`` without a gradient."""
    return spec.vector(dist.sample()) if spec.discrete else own.vector[0].detach()


def action_of_vector(spec: ActionSpec, vector: Tensor) -> Tensor:
    """The action in the env's form, from a vector ``[*B, n_agents, D]`` that is one-hot where it is discrete."""
    if not spec.discrete:
        return vector
    choices = torch.stack([part.argmax(-1) for part in vector.split(list(spec.sizes), -1)], -1)
    return _as_action(spec, choices)


def log_number_of_choices(spec: ActionSpec, allowed: Tensor | None, dtype: torch.dtype) -> Tensor | float:
    """The logarithm of how many joint choices each agent has, the largest entropy of its policy; 0 where it has none.

    Args:
        spec: of discrete actions.
        allowed: which choices are, bool ``[*B, n_agents, N]``; ``None`` for all.
        dtype: of the result ``[*B, n_agents]``; without ``allowed`` it is a number.
    """
    if allowed is None:
        return sum(math.log(size) for size in spec.sizes)
    counts = [part.sum(-1).clamp(min=1) for part in allowed.split(list(spec.sizes), -1)]
    return torch.stack([count.to(dtype).log() for count in counts]).sum(0)


def log_prob_of(dist: Distribution, spec: ActionSpec, vector: Tensor, unsquashed: Tensor | None) -> Tensor:
    """The log-probability of actions as vectors, from their unsquashed values where ``dist`` can score those."""
    if unsquashed is not None and isinstance(dist, SamplesUnsquashed):
        return dist.log_prob_of_unsquashed(unsquashed)
    return dist.log_prob(action_of_vector(spec, vector))


def _reparameterized(dist: Distribution) -> tuple[Tensor, Tensor, Tensor | None]:
    """A sample, its log-probability, and the sample before squashing where ``dist`` squashes."""
    if isinstance(dist, SamplesUnsquashed):
        x = dist.rsample_unsquashed()
        return dist.squash(x), dist.log_prob_of_unsquashed(x), x
    action = dist.rsample()
    return action, dist.log_prob(action), None


def _log_half_range(spec: ActionSpec, like: Tensor) -> Tensor:
    """The logarithm ``[n_agents]`` that is added to a log-density to measure actions in units of half their range."""
    low, high = (torch.tensor(bound, dtype=like.dtype, device=like.device) for bound in (spec.low, spec.high))
    return ((high - low) / 2).log().sum(-1)


def _as_action(spec: ActionSpec, index: Tensor) -> Tensor:
    """The choices ``[*B, n_choices]`` in the env's form."""
    if spec.kind == "multi_discrete":
        return index
    return one_hot(index[..., 0], spec.sizes[0]).long() if spec.kind == "one_hot" else index[..., 0]


def _device(dist: Distribution) -> torch.device:
    mode: Any = dist.mode
    return mode.device
