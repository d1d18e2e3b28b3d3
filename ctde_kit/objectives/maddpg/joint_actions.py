"""Joint actions in one row per agent, where row i changes only agent i's action, and a critic's values of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.keys import IS_INIT, GroupKeys, Key
from ctde_kit.objectives.unroll import hidden_key, single_steps
from ctde_kit.protocols import DrawsSubPolicies, SwapsOwnAction
from ctde_kit.specs import GroupSpec


class LearningActor(Protocol):
    """What MADDPG's and MASAC's losses use of any actor that learns."""

    @property
    def group(self) -> GroupSpec:
        """The group whose actions it writes."""
        ...

    @property
    def agent_network(self) -> TensorDictModuleBase:
        """The network from whose output its actions are computed."""
        ...


class DeterministicActor(LearningActor, Protocol):
    """What MADDPG's loss uses of the actor of a group that learns, such as ``MultiAgentDeterministicActor``."""

    @property
    def output_key(self) -> Key:
        """Where the network's output stands: logits, or actions before squashing."""
        ...

    @property
    def sub_policies(self) -> DrawsSubPolicies | None:
        """Draws which sub-policy each agent follows; ``None`` where each has one policy."""
        ...

    def greedy_vector(self, tensordict: TensorDictBase, /) -> Tensor:
        """Actions ``[*B, n_agents, D]`` without noise, one-hot where discrete, from the output in ``tensordict``."""
        ...

    def differentiable_vector(self, tensordict: TensorDictBase, /) -> Tensor:
        """The same actions with a gradient; discrete ones are samples."""
        ...


class Opponent(Protocol):
    """What MADDPG's and MASAC's losses use of an actor that does not learn; a module, such as ``FrozenActor``."""

    @property
    def group(self) -> GroupSpec:
        """The group whose actions it writes."""
        ...

    @property
    def in_keys(self) -> Sequence[NestedKey]:
        """The keys that it reads."""
        ...

    def __call__(self, tensordict: TensorDictBase, /) -> TensorDictBase:
        """Write ``(group, "action")``."""
        ...


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside the block, gradients pass through ``modules`` to their inputs, but their parameters get none."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def stored_vector(group: GroupSpec, tensordict: TensorDictBase) -> Tensor:
    """Each agent's stored action as a vector ``[*B, T, n_agents, D]``; zero for dead agents."""
    action = tensordict.get(group.keys.action)
    if not group.mask:
        return group.action.vector(action)
    alive = tensordict.get(group.keys.mask)
    action = action.masked_fill(~alive.reshape(*alive.shape, *[1] * (action.ndim - alive.ndim)), 0)
    return zero_dead(group.action.vector(action), alive)


def zero_dead(vector: Tensor, alive: Tensor | None) -> Tensor:
    """``vector`` ``[*B, n_agents, D]``, zero where ``alive`` ``[*B, n_agents]`` is false."""
    return vector if alive is None else vector.masked_fill(~alive.unsqueeze(-1), 0)


def own_action_values(
    critic: TensorDictModuleBase, keys: GroupKeys, tensordict: TensorDictBase, own_action: Tensor
) -> Tensor:
    """Each agent's value ``[*K, *B, n_agents, 1]`` when it alone takes its action in ``own_action``.

    It is computed by the critic's own ``own_action_values`` if the critic ``swaps_own_action``, else by
    ``values_of_rows``. A recurrent critic takes one step from the hidden states in ``tensordict``.

    Args:
        critic: of the group's agents.
        keys: of the group.
        tensordict: the other entries that it reads, ``[*B]``.
        own_action: ``[*B, n_agents, D]``, or several actions of each agent, ``[*K, *B, n_agents, D]``.
    """
    if isinstance(critic, SwapsOwnAction) and critic.swaps_own_action:
        return critic.own_action_values(tensordict, own_action)
    inputs = tensordict.expand(own_action.shape[:-2])
    return values_of_rows(critic, keys, inputs, {keys.group: own_rows(inputs.get(keys.action_vector), own_action)})


def own_rows(vector: Tensor, own_action: Tensor) -> Tensor:
    """Joint actions ``[*B, n_agents, n_agents, D]``; row i has agent i's ``own_action``, and the others' ``vector``.

    ``own_action`` is ``[*B, n_agents, D]``. ``vector`` has the same shape and then serves every row, or it is
    ``[*B, n_agents, n_agents, D]``, with one row per agent.

    >>> own_rows(torch.zeros(2, 1), torch.ones(2, 1)).squeeze(-1)
    tensor([[1., 0.],
            [0., 1.]])
    """
    is_own = torch.eye(own_action.shape[-2], dtype=torch.bool, device=own_action.device).unsqueeze(-1)
    rows = vector.unsqueeze(-3) if vector.ndim == own_action.ndim else vector
    return torch.where(is_own, own_action.unsqueeze(-3), rows)


def values_of_rows(
    critic: TensorDictModuleBase, keys: GroupKeys, tensordict: TensorDictBase, rows: Mapping[str, Tensor]
) -> Tensor:
    """Each agent's value ``[*B, n_agents, 1]`` of the joint action in its row, with any critic.

    The critic runs once, on a batch that holds everything ``n_agents`` times.

    Args:
        critic: writes ``(group, "state_action_value")`` ``[*B, n_agents, 1]``.
        keys: the keys of the critic's group; each of its agents has a row.
        tensordict: the other entries that the critic reads.
        rows: the actions ``[*B, n_agents, n_others, D]`` of each group whose actions differ from row to row.
    """
    n_rows = next(iter(rows.values())).shape[-3]
    inputs = tensordict.select(*critic.in_keys, strict=False)
    if hidden_key(critic) is not None:
        # The hidden states are those that each step starts from, so nothing is left to reset.
        inputs.set(IS_INIT, torch.zeros_like(inputs.get(IS_INIT)))
    batch = inputs.unsqueeze(inputs.ndim).expand(*inputs.shape, n_rows).clone(recurse=False)
    for group, vector in rows.items():
        batch.set(GroupKeys(group).action_vector, vector)
    values = single_steps(critic, batch).get(keys.state_action_value)
    return values.squeeze(-1).diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
