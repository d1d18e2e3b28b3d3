"""Protocols of one group's policy, and of what losses need of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.distributions import Distribution

from ctde_kit.capability import Capability
from ctde_kit.keys import Key
from ctde_kit.specs import GroupSpec

if TYPE_CHECKING:
    from torchrl.envs import TensorDictPrimer


@runtime_checkable
class HasGroup(Capability, Protocol):
    """A module of one group of agents that knows the group's spec, such as ``MultiAgentActor``."""

    @property
    def group(self) -> GroupSpec:
        """The group's spec."""
        ...


@runtime_checkable
class SplitsIntoAgents(HasGroup, Protocol):
    """A policy of a group that can be split into one policy per agent, such as ``MultiAgentActor``."""

    def group_of_one(self, agent: int, /) -> ProbabilisticTensorDictSequential:
        """The policy of a group of this agent alone, on the same storage; entries have an agent axis of size 1."""
        ...


@runtime_checkable
class GroupActor(Capability, Protocol):
    """The policy of one group, whether it learns or not: what ``TeamPolicy`` uses of it."""

    @property
    def group(self) -> GroupSpec:
        """The group whose actions it writes."""
        ...

    @property
    def in_keys(self) -> Sequence[NestedKey]:
        """The keys it reads; an actor that reads a hidden state also has ``make_tensordict_primer()``."""
        ...

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        ...

    def __call__(self, tensordict: TensorDictBase, /) -> TensorDictBase:
        """Write ``(group, "action")``, and whatever else it writes."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its parameters; empty if it does not learn."""
        ...

    def for_agent(self, agent: int, /) -> TensorDictModuleBase:
        """The policy of one agent alone."""
        ...


@runtime_checkable
class LearnsActions(Capability, Protocol):
    """An actor that gives its actions with a gradient, such as ``MultiAgentDeterministicActor``."""

    def differentiable_vector(self, tensordict: TensorDictBase, /) -> Tensor:
        """Actions as vectors ``[*B, n_agents, D]``, from the network's output in ``tensordict``."""
        ...


@runtime_checkable
class ProvidesPrimer(Capability, Protocol):
    """A policy that may carry a hidden state from step to step, which an env transform provides."""

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the hidden state; it does nothing where there is none."""
        ...


class DrawsSubPolicies(Protocol):
    """Draws which of its sub-policies each agent follows in an episode, such as ``SubPolicyDraw``."""

    @property
    def key(self) -> Key:
        """Where the index of each agent's sub-policy stands, int64 ``[*B, n_agents]``."""
        ...

    @property
    def size(self) -> int:
        """How many sub-policies each agent has."""
        ...


class PolicyBeliefs(Protocol):
    """Each agent's predictions of the others' policies, such as ``InferredPolicies``."""

    def __call__(self, tensordict: TensorDictBase, observer: str, other: str, /) -> Tensor:
        """Logits, or actions before squashing, ``[*B, n_observers, n_others, D]``; the groups are given by name."""
        ...


@runtime_checkable
class SamplesEntropy(Capability, Protocol):
    """A distribution that estimates its entropy from samples, such as ``TanhNormal``, which has no closed form."""

    def sampled_entropy(self, n_samples: int, /) -> Tensor:
        """The entropy ``[*B]``, from ``n_samples`` samples."""
        ...


@runtime_checkable
class GivesProbabilities(Capability, Protocol):
    """A distribution that gives the probability of each choice, such as ``MaskedCategorical``."""

    @property
    def probs(self) -> Tensor:
        """The probabilities ``[*B, A]``; 0 for choices that are not allowed."""
        ...


@runtime_checkable
class LearnsDistribution(Capability, Protocol):
    """An actor that gives the distribution of its actions, such as ``MultiAgentActor``."""

    @property
    def agent_network(self) -> TensorDictModuleBase:
        """Writes the distribution's parameters."""
        ...

    def build_dist_from_params(self, tensordict: TensorDictBase, /) -> Distribution:
        """The distribution, batch ``[*B, n_agents]``, from the output and the action mask in ``tensordict``."""
        ...


@runtime_checkable
class SamplesUnsquashed(Capability, Protocol):
    """A distribution that scores its samples more exactly before they are squashed, such as ``TanhNormal``."""

    def rsample_unsquashed(self) -> Tensor:
        """A sample ``[*B, D]`` before squashing, with a gradient."""
        ...

    def squash(self, x: Tensor, /) -> Tensor:
        """The action that has the unsquashed value ``x``."""
        ...

    def log_prob_of_unsquashed(self, x: Tensor, /) -> Tensor:
        """The log-probability ``[*B]`` of that action."""
        ...
