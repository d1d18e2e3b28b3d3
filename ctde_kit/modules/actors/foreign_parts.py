"""Modules of TorchRL as parts of the kit's losses: Q networks, deterministic actors, and critics of actions."""

from __future__ import annotations

from typing import NoReturn

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.entry_tables import Entry
from ctde_kit.errors import UserError
from ctde_kit.keys import Key
from ctde_kit.modules.actors.deterministic_actor import MultiAgentDeterministicActor
from ctde_kit.modules.actors.q_actor import MultiAgentQActor
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.protocols import SaysDecentralized
from ctde_kit.specs import GroupSpec


class ForeignNetwork(TensorDictModuleBase):
    """A feed-forward module of another library that takes the place of an ``AgentNetwork``.

    Args:
        module: reads and writes any entries.
    """

    hidden_key: Key | None = None
    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, module: TensorDictModuleBase):
        super().__init__()
        self.module = module
        self.in_keys, self.out_keys = list(module.in_keys), list(module.out_keys)

    @property
    def decentralized(self) -> bool:
        """Whether the module says that agents are kept apart; false if it says nothing."""
        return isinstance(self.module, SaysDecentralized) and self.module.decentralized

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return self.module(tensordict)

    def for_agent(self, agent: int) -> NoReturn:
        """Refused: nothing is known of how the module keeps agents apart.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"for_agent({agent}): {type(self.module).__name__} is a module of another library, of which no part is "
            "known to be one agent's; call it with all agents, or use an actor of the kit"
        )

    def make_tensordict_primer(self) -> NoReturn:
        """Refused: the module is taken as feed-forward.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"make_tensordict_primer: {type(self.module).__name__}, a module of another library, has no hidden state "
            "that the kit knows; use the primer of that library"
        )


class ForeignCritic(TensorDictModuleBase):
    """A critic that reads ``(group, "action")``, for losses that write ``(group, "action_vector")``."""

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, groups: list[GroupSpec], module: TensorDictModuleBase):
        super().__init__()
        self.module, self.groups = module, groups
        vectors: dict[NestedKey, NestedKey] = {group.keys.action: group.keys.action_vector for group in groups}
        self.in_keys = [vectors.get(key, key) for key in module.in_keys]
        self.out_keys = list(module.out_keys)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        inputs = tensordict.copy()
        for group in self.groups:
            inputs.set(group.keys.action, tensordict.get(group.keys.action_vector))
        return tensordict.update(self.module(inputs).select(*self.out_keys))


class ForeignQActor(MultiAgentQActor):
    """A Q network of another library that chooses actions as ``MultiAgentQActor`` does; ``as_q_actor`` makes it."""

    def __init__(self, group: GroupSpec, module: TensorDictModuleBase, epsilon: float):
        TensorDictModuleBase.__init__(self)
        group.check_one_choice("Q-learning")
        keys = group.keys
        self.group, self.agent_network = group, ForeignNetwork(module)
        self.register_buffer("epsilon", torch.tensor(float(epsilon)))
        masks = [keys.action_mask] * group.action_mask + [keys.mask] * group.mask
        self.in_keys = list(dict.fromkeys([*module.in_keys, *masks]))
        self.out_keys = [keys.action_value, keys.chosen_action_value, keys.action]

    @property
    def in_entries(self) -> list[Entry]:
        return []


class ForeignDeterministicActor(MultiAgentDeterministicActor):
    """An actor of another library that writes continuous actions; ``as_deterministic_actor`` makes it."""

    def __init__(self, group: GroupSpec, module: TensorDictModuleBase):
        TensorDictModuleBase.__init__(self)
        self.group, self.agent_network, self.output_key = group, ForeignNetwork(module), group.keys.action
        self.noise, self.temperature, self.sub_policies = None, 1.0, None
        self.in_keys, self.out_keys = list(module.in_keys), [group.keys.action]

    @property
    def in_entries(self) -> list[Entry]:
        return []

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return self.agent_network(tensordict)

    def greedy_vector(self, tensordict: TensorDictBase) -> Tensor:
        return tensordict.get(self.output_key)

    def differentiable_vector(self, tensordict: TensorDictBase) -> Tensor:
        return tensordict.get(self.output_key)


def as_q_actor(group: GroupSpec, module: TensorDictModuleBase, *, epsilon: float = 0.0) -> MultiAgentQActor:
    """A Q network of TorchRL as the actor of one group that ``QMixLoss`` learns.

    The actor chooses as ``MultiAgentQActor`` does: each agent explores by itself, none takes a forbidden action, and
    dead agents take the no-op. If the module writes ``action`` itself, that is overwritten.

    Args:
        group: the group's spec.
        module: feed-forward; writes ``(group, "action_value")`` ``[*B, n_agents, A]``.
        epsilon: the probability of a random action.

    Raises:
        UserError: for a module that does not write action values, or is recurrent.

    >>> from tensordict.nn import TensorDictModule
    >>> from torchrl.modules import MultiAgentMLP
    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, continuous_actions=False)
    >>> group = ck.TeamSpec.from_env(env)["agents"]
    >>> network = MultiAgentMLP(18, 9, n_agents=4, centralized=False, share_params=True, depth=1, num_cells=8)
    >>> module = TensorDictModule(network, [group.keys.observation], [group.keys.action_value])
    >>> ck.modules.as_q_actor(group, module)(env.reset())["agents", "action"].shape
    torch.Size([2, 4])
    """
    _check_module("as_q_actor", module, group.keys.action_value)
    return ForeignQActor(group, module, epsilon)


def as_deterministic_actor(group: GroupSpec, module: TensorDictModuleBase) -> MultiAgentDeterministicActor:
    """An actor of TorchRL as the actor of one group that ``MADDPGLoss`` learns.

    Args:
        group: the group's spec, with continuous actions.
        module: feed-forward, without noise; writes ``(group, "action")`` within the bounds, with a gradient.

    Raises:
        UserError: for discrete actions, and a module that writes no action, or is recurrent.

    >>> from tensordict.nn import TensorDictModule
    >>> from torch import nn
    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2)
    >>> group = ck.TeamSpec.from_env(env)["agents"]
    >>> network = nn.Sequential(nn.Linear(18, 2), nn.Tanh())
    >>> module = TensorDictModule(network, [group.keys.observation], [group.keys.action])
    >>> ck.modules.as_deterministic_actor(group, module)(env.reset())["agents", "action"].shape
    torch.Size([2, 4, 2])
    """
    if group.action.discrete:
        raise UserError(
            f"as_deterministic_actor: the actions of group {group.name!r} are discrete, and an action alone has no "
            "gradient; use MultiAgentDeterministicActor, whose network writes logits"
        )
    _check_module("as_deterministic_actor", module, group.keys.action)
    return ForeignDeterministicActor(group, module)


def as_action_value_critic(group: GroupSpec, module: TensorDictModuleBase) -> TensorDictModuleBase:
    """A critic of TorchRL that reads ``(group, "action")``, as a critic that ``MADDPGLoss`` learns.

    Args:
        group: the group's spec, with continuous actions.
        module: feed-forward; writes ``(group, "state_action_value")`` ``[*B, n_agents, 1]``.

    Raises:
        UserError: for discrete actions, and a module that writes no such value, or is recurrent.

    >>> from tensordict.nn import TensorDictModule
    >>> import torch
    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2)
    >>> group = ck.TeamSpec.from_env(env)["agents"]
    >>> class Critic(torch.nn.Module):
    ...     def forward(self, observation, action):
    ...         return observation.sum(-1, keepdim=True) + action.sum(-1, keepdim=True)
    >>> keys = group.keys
    >>> module = TensorDictModule(Critic(), [keys.observation, keys.action], [keys.state_action_value])
    >>> ck.modules.as_action_value_critic(group, module).in_keys
    [('agents', 'observation'), ('agents', 'action_vector')]
    """
    if group.action.discrete:
        raise UserError(
            f"as_action_value_critic: the actions of group {group.name!r} are discrete, and indices have no gradient; "
            "let the critic read one-hot vectors, (group, 'action_vector')"
        )
    _check_module("as_action_value_critic", module, group.keys.state_action_value)
    return ForeignCritic([group], module)


def _check_module(owner: str, module: TensorDictModuleBase, key: Key) -> None:
    name = type(module).__name__
    if not isinstance(module, TensorDictModuleBase):
        raise UserError(
            f"{owner}: module is a {name}: expected TensorDictModule(module, in_keys=[...], out_keys=[{key}])"
        )
    written = list(module.out_keys)
    if key not in written:
        raise UserError(f"{owner}: {name} writes {written}: expected {key} among them; change its out_keys")
    if any(isinstance(other, tuple) and other[0] == "next" for other in written):
        raise UserError(
            f"{owner}: {name} is recurrent: it writes {written}, and losses take next values from one step; use "
            "MultiAgentGRU in an actor of the kit"
        )
