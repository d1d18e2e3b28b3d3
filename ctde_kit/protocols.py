"""The small interfaces that the packages share without importing each other.

A protocol that extends ``Capability`` may be asked for with ``isinstance``; the others are for type checkers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.distributions import Distribution

from ctde_kit.capability import Capability
from ctde_kit.entry_tables import Entry
from ctde_kit.keys import Key
from ctde_kit.specs import GroupSpec

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

    from ctde_kit.specs import GroupSpec


@runtime_checkable
class Stateful(Capability, Protocol):
    """A part whose state a checkpoint saves."""

    def state_dict(self) -> dict[str, Any]:
        """All that must be restored, as tensors and plain Python values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Restore a state that ``state_dict`` returned."""
        ...


class TargetRule(Stateful, Protocol):
    """Called after each gradient step: moves target networks, or changes the online networks once more.

    Its state is what it counts; the networks' weights are saved with the loss that owns them.
    """

    def __call__(self) -> None:
        """Take note of one more gradient step, and act where it is time."""
        ...


class ExperienceCollector(Stateful, Protocol):
    """What the training loop and the recipes need of a collector."""

    @property
    def env(self) -> EnvBase:
        """The env that it steps, with its transforms."""
        ...

    @property
    def frames(self) -> int:
        """Env transitions collected so far."""
        ...

    def __iter__(self) -> Iterator[TensorDictBase]:
        """Fresh batches ``[n_envs, T]``, until all frames are collected."""
        ...

    def update_policy_weights_(self) -> None:
        """Act with the current weights from the next batch on."""
        ...

    def shutdown(self) -> None:
        """Release the env."""
        ...


class ExperienceBuffer(Protocol):
    """What a training loop needs of a buffer; how samples are drawn is between the buffer and the update schedule."""

    def extend(self, batch: TensorDictBase, /) -> Any:
        """Store a batch ``[n_envs, T]``."""
        ...


class ReplayBuffer(ExperienceBuffer, Protocol):
    """A buffer of past experience from which any number of samples can be drawn."""

    @property
    def frames(self) -> int:
        """Env transitions stored so far, including those overwritten since."""
        ...

    def samples(self, count: int, /) -> Iterator[TensorDictBase]:
        """``count`` random samples, one after the other."""
        ...

    def update_priority(self, sampled: TensorDictBase, /) -> None:
        """Take over the ``td_error`` that a loss wrote into a sample; does nothing without priorities."""
        ...


@runtime_checkable
class ReportsCapture(Capability, Protocol):
    """An env that says whether ``state_dict`` captures its whole state; an env that says nothing captures it."""

    @property
    def state_is_captured(self) -> bool:
        """False where the state cannot be read: taking a checkpoint then ends the running episodes."""
        ...


class ReturnScale(Protocol):
    """The units in which a critic learns returns; a module, so that its statistics are kept with its owner's."""

    def update(self, returns: Tensor, mask: Tensor | None = None, /) -> None:
        """Take in the returns where ``mask``, bool and of the same shape, is true."""
        ...

    def normalize(self, returns: Tensor, /) -> Tensor:
        """Returns in units of the critic's outputs."""
        ...

    def denormalize(self, values: Tensor, /) -> Tensor:
        """The critic's outputs in units of returns."""
        ...


class RewardScale(Protocol):
    """The units in which losses read rewards, such as ``RewardNorm``; a module, whose statistics they keep."""

    def normalize(self, tensordict: TensorDictBase, /, *, read: Iterable[NestedKey]) -> TensorDictBase:
        """A shallow copy with the rewards that are ``read`` in these units; an error where others are."""
        ...


class ObservationStatistics(Stateful, Protocol):
    """Running statistics of observations, such as ``ObservationNorm``."""

    def update(self, batch: TensorDictBase, /) -> None:
        """Take in a batch ``[n_envs, T]`` that has been learned from."""
        ...


@runtime_checkable
class SharedWithTargets(Capability, Protocol):
    """A module of an online network that its target network shares, such as running statistics of what both read."""

    @property
    def shared_with_targets(self) -> bool:
        """Whether a target network has this module itself, and no copy of it."""
        ...


@runtime_checkable
class KeepsHiddenState(Capability, Protocol):
    """A module that is recurrent where its ``hidden_key`` is not ``None``, such as ``AgentNetwork``."""

    @property
    def hidden_key(self) -> Key | None:
        """Where it reads its hidden state, and under ``next`` writes the one after the step; ``None``: it has none."""
        ...


class RecurrentModule(Protocol):
    """A module that reads its hidden state at ``hidden_key`` and writes the next one under ``next``."""

    @property
    def hidden_key(self) -> Key:
        """Where it reads its hidden state."""
        ...

    @property
    def hidden_shape(self) -> tuple[int, ...]:
        """The shape of one hidden state, without batch dimensions."""
        ...


@runtime_checkable
class DeclaresEntries(Capability, Protocol):
    """A module that says what the entries that it reads look like, such as ``AgentNetwork``.

    Losses check them before they run it. Of other modules they know the keys alone.
    """

    @property
    def in_entries(self) -> Sequence[Entry]:
        """The entries at its ``in_keys``; some may be left out."""
        ...


@runtime_checkable
class HasGroup(Capability, Protocol):
    """A module of one group of agents that knows the group's spec, such as ``MultiAgentActor``."""

    @property
    def group(self) -> GroupSpec:
        """The group's spec."""
        ...


@runtime_checkable
class LearnsActions(Capability, Protocol):
    """An actor that gives its actions with a gradient, such as ``MultiAgentDeterministicActor``."""

    def differentiable_vector(self, tensordict: TensorDictBase, /) -> Tensor:
        """Actions as vectors ``[*B, n_agents, D]``, of the network's output in ``tensordict``."""
        ...


@runtime_checkable
class LearnsDistribution(Capability, Protocol):
    """An actor that gives the distribution of its actions, such as ``MultiAgentActor``."""

    @property
    def agent_network(self) -> TensorDictModuleBase:
        """Writes the distribution's parameters."""
        ...

    def build_dist_from_params(self, tensordict: TensorDictBase, /) -> Distribution:
        """The distribution, batch ``[*B, n_agents]``, of the network's output and the action mask in ``tensordict``."""
        ...


@runtime_checkable
class DrawsOrders(Capability, Protocol):
    """A critic that sees agents in drawn orders, such as ``RandomOrderCritic``."""

    @property
    def order_keys(self) -> Sequence[Key]:
        """Where it reads the order of each group, int64 ``[*B, n_agents]``."""
        ...

    def draw_order(self, tensordict: TensorDictBase, /) -> TensorDictBase:
        """Write the orders that are not there yet, at the root and under ``next``."""
        ...


@runtime_checkable
class SwapsOwnAction(Capability, Protocol):
    """A critic of actions that can swap one agent's action at less cost than one pass per agent."""

    @property
    def swaps_own_action(self) -> bool:
        """Whether ``own_action_values`` can be computed for this network."""
        ...

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor, /) -> Tensor:
        """The value ``[*B, n_agents, 1]`` for each agent where it alone takes its action of ``action``."""
        ...


@runtime_checkable
class SaysRecurrent(Capability, Protocol):
    """A network that says whether it carries a hidden state from step to step."""

    @property
    def recurrent(self) -> bool:
        """Whether it takes a hidden state and ``is_init``, and gives the next hidden state."""
        ...


@runtime_checkable
class SaysReadsMask(Capability, Protocol):
    """A network that says whether it needs to know which agents are alive."""

    @property
    def reads_mask(self) -> bool:
        """Whether it takes the argument ``mask``, bool ``[*B, n_agents]``."""
        ...


@runtime_checkable
class SaysDecentralized(Capability, Protocol):
    """A network, actor or critic that says whether agents are kept apart."""

    @property
    def decentralized(self) -> bool:
        """Whether agent i's output depends on agent i's input alone."""
        ...


@runtime_checkable
class SaysCentralized(Capability, Protocol):
    """A network of TorchRL, which says the opposite: whether agents see each other's inputs."""

    @property
    def centralized(self) -> bool:
        """Whether agent i's output depends on the other agents' inputs, too."""
        ...


class GroupActor(Protocol):
    """The policy of one group, whether it learns or not: what ``TeamPolicy`` uses of it."""

    @property
    def group(self) -> GroupSpec:
        """The group whose actions it writes."""
        ...

    @property
    def in_keys(self) -> Sequence[NestedKey]:
        """The keys it reads; an actor that reads ``group.keys.hidden("actor")`` has ``make_tensordict_primer()``."""
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
    """What each agent believes of the others' policies, such as ``InferredPolicies``."""

    def __call__(self, tensordict: TensorDictBase, observer: str, other: str, /) -> Tensor:
        """Logits, or actions before squashing, ``[*B, n_observers, n_others, D]``, of two groups by name."""
        ...


@runtime_checkable
class SamplesEntropy(Capability, Protocol):
    """A distribution that estimates its entropy from samples, such as ``TanhNormal``, which knows no closed form."""

    def sampled_entropy(self, n_samples: int, /) -> Tensor:
        """The entropy ``[*B]``, from ``n_samples`` samples."""
        ...


@runtime_checkable
class SamplesWithLogProb(Capability, Protocol):
    """A distribution that scores its own samples better than other values, such as ``TanhNormal``."""

    def rsample_with_log_prob(self) -> tuple[Tensor, Tensor]:
        """A sample ``[*B, D]`` and its log-probability ``[*B]``, both with gradients."""
        ...


@runtime_checkable
class HoldsLosses(Capability, Protocol):
    """An update that shows the losses which it minimizes, such as ``GradientStep``."""

    @property
    def losses(self) -> nn.Module:
        """All losses, with the networks that they train."""
        ...


class StateAccess(Protocol):
    """An env's state as a TensorDict."""

    def read(self) -> TensorDictBase:
        """The state at this moment."""
        ...

    def write(self, state: TensorDictBase, /) -> None:
        """Take over a state."""
        ...


@runtime_checkable
class PureEnv(Stateful, Protocol):
    """An env whose step and partial reset can be functions of tensors alone."""

    @property
    def tensor_state(self) -> StateAccess:
        """Reads and writes its state; raises ``TraceError`` where that cannot be done."""
        ...

    def draw_initial_states(self, count: int, /) -> TensorDictBase:
        """At least ``count`` fresh initial states, one per row, as a part of what ``tensor_state`` reads."""
        ...

    def resets_to(self, fresh: TensorDictBase, /) -> AbstractContextManager[None]:
        """Inside the block steps are eager, and partial resets take the rows of ``fresh`` ``[n_envs]``."""
        ...
