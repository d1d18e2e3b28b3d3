"""Stochastic policies of one group, for sampling and for PPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn
from torch.distributions import Distribution
from torchrl.data import Composite
from torchrl.envs import TensorDictPrimer
from torchrl.modules import ProbabilisticActor

from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.errors import UserError
from ctde_kit.keys import Key
from ctde_kit.modules.actors.distributions import MaskedCategorical, MaskedMultiCategorical, TanhNormal
from ctde_kit.modules.actors.epsilon_floor import EpsilonFloor
from ctde_kit.modules.actors.learned_scale import LearnedScale
from ctde_kit.modules.actors.value_head import ValueHead
from ctde_kit.modules.argument_checks import check_actor_arguments, check_one_agent
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.agent_network import AgentNetwork, Split, actor_hidden_key
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.modules.networks.sizes import OutputSize
from ctde_kit.modules.networks.team_input import TeamInput
from ctde_kit.specs import GroupSpec


class MultiAgentActor(ProbabilisticActor):
    """A stochastic policy of one group of agents, as a TorchRL ``ProbabilisticActor``.

    Reads ``inputs`` (and the action mask, if the group has one); writes the distribution's parameters,
    ``(group, "action")`` and ``(group, "action_log_prob")`` ``[*B, n_agents]``. Continuous actions follow a
    ``TanhNormal``, discrete ones a masked categorical distribution. TorchRL's ``set_exploration_type`` chooses between
    sampling and the greedy action.

    Args:
        group: the group's spec.
        inputs: what each agent sees, usually ``own_observation(group)``.
        network: ``[*B, n_agents, F] -> [*B, n_agents, group.action.n_parameters]``, or ``[..., D]`` with ``scale``.
        scale: the standard deviation of continuous actions as a learned parameter; ``None``: the network gives
            location and standard deviation (through softplus).
        floor: mixes the softmax of discrete actions with a uniform choice; ``None``: the softmax alone.
        value_head: the network has one more output, the agent's value, which is written to ``(group, "state_value")``:
            ``agent_network`` is the critic, too.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import MultiAgentActor, MultiAgentMLP, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("navigation", num_envs=4)
    >>> group = TeamSpec.from_env(env)["agents"]
    >>> inputs = own_observation(group)
    >>> network = MultiAgentMLP(inputs.features, group.action.n_parameters, group.n_agents)
    >>> actor = MultiAgentActor(group, inputs, network)
    >>> actor(env.reset())["agents", "action"].shape
    torch.Size([4, 4, 2])
    """

    def __init__(
        self,
        group: GroupSpec,
        inputs: Input | TeamInput,
        network: nn.Module,
        scale: LearnedScale | None = None,
        floor: EpsilonFloor | None = None,
        *,
        value_head: bool = False,
    ):
        check_actor_arguments("MultiAgentActor", group, inputs, network, "n_parameters")
        if group.action.discrete and scale is not None:
            raise UserError(f"MultiAgentActor: group {group.name!r} has discrete actions; leave scale=None")
        module = _agent_network(group, inputs, network, scale, value_head)
        distribution, arguments, in_keys = _distribution(group, floor)
        super().__init__(
            module,  # pyright: ignore[reportArgumentType]  # TorchRL takes any TensorDict module
            in_keys=in_keys,  # pyright: ignore[reportArgumentType]  # and a dict of keys
            out_keys=[group.keys.action],
            distribution_class=distribution,
            distribution_kwargs=arguments,
            return_log_prob=True,
            log_prob_keys=[group.keys.action_log_prob],
            spec=group.action_spec,
        )
        self.group, self.floor, self.value_head = group, floor, value_head

    @property
    def agent_network(self) -> AgentNetwork:
        network = self.module[0]
        assert isinstance(network, AgentNetwork)
        return network

    @property
    def in_entries(self) -> list[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        return [*self.agent_network.in_entries, *GroupEntries.of(self.group).by_key().values()]

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        return self.agent_network.decentralized

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the hidden state of a recurrent actor."""
        return self.agent_network.make_tensordict_primer()

    def for_agent(self, agent: int) -> SingleAgentActor:
        """The policy of one agent alone, on the same storage: ``(group, "observation")`` ``[*B, F]`` in, action out.

        Raises:
            UserError: for an index that the group lacks, or a policy that is not decentralized.
        """
        self.group.check_agent(agent)
        return SingleAgentActor(self, agent)

    def group_of_one(self, agent: int, *, keep_axis: bool = True) -> MultiAgentActor:
        """The policy of a group of this agent alone, on the same storage; every entry has an agent axis of size 1.

        Args:
            agent: its index in the group.
            keep_axis: whether what the network sees has this axis, too; else it is ``[*B, F]``.

        Raises:
            UserError: as ``for_agent`` does.
        """
        single = self.agent_network.for_agent(agent, keep_axis=keep_axis)
        split = single.split.policy if isinstance(single.split, ValueHead) else single.split
        scale = split if isinstance(split, LearnedScale) else None
        group, inputs = self.group.for_agent(agent), single.inputs
        return MultiAgentActor(group, inputs, single.network, scale, self.floor, value_head=self.value_head)


class SingleAgentActor(TensorDictModuleBase):
    """The policy of one agent of a ``MultiAgentActor``: every entry is without the agent axis.

    A recurrent one reads and writes its hidden state ``[*B, 1, H]``.

    Args:
        actor: the group's policy, whose parameters it shares.
        agent: the agent's index in the group.
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, actor: MultiAgentActor, agent: int):
        super().__init__()
        self.actor = actor.group_of_one(agent, keep_axis=False)
        self.in_keys = self.actor.in_keys
        self._written = [key for key in self.actor.agent_network.out_keys if str(key[-1]).endswith("_hidden")]
        self.out_keys = [*self._written, actor.group.keys.action, actor.group.keys.action_log_prob]

    @property
    def spec(self) -> Composite:
        """The spec of its action, without an agent axis."""
        return Composite({self.actor.group.name: Composite({"action": self.actor.group.action.tensor_spec(None)})})

    def get_dist(self, tensordict: TensorDictBase) -> Distribution:
        """The distribution of the agent's action, batch ``[*B]``."""
        distribution, arguments, in_keys = _distribution(self.actor.group, self.actor.floor)
        output = self.actor.agent_network(self._with_agent_axis(tensordict))
        parameters = {name: output.get(key).squeeze(tensordict.ndim) for name, key in in_keys.items()}
        bounds = {name: bound[0] for name, bound in arguments.items() if name in ("low", "high")}
        return distribution(**parameters, **{**arguments, **bounds})

    def _with_agent_axis(self, tensordict: TensorDictBase) -> TensorDictBase:
        """A copy, in which the action mask has the agent axis that the group's distribution expects."""
        keys, output = self.actor.group.keys, tensordict.copy()
        check_one_agent(tensordict, self.actor.agent_network.inputs.in_keys)
        mask = tensordict.get(keys.action_mask, None)
        return output if mask is None else output.set(keys.action_mask, mask.unsqueeze(-2))

    @keyword_calls(agent_axis=0)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = self.actor.group.keys
        output = self.actor(self._with_agent_axis(tensordict))
        for key in (keys.action, keys.action_log_prob):
            tensordict.set(key, output.get(key).squeeze(tensordict.ndim))
        for key in self._written:
            tensordict.set(key, output.get(key))
        return tensordict


def _agent_network(
    group: GroupSpec, inputs: Input | TeamInput, network: nn.Module, scale: LearnedScale | None, value_head: bool
) -> AgentNetwork:
    """What gives the parameters of the group's distribution and, with ``value_head``, the agents' values."""
    keys, action = group.keys, group.action
    out_keys = [keys.logits] if action.discrete else [keys.loc, keys.scale]
    split: Split | None = scale
    size, meaning = action.n_parameters, "group.action.n_parameters, one per choice"
    if scale is not None:
        size, meaning = action.vector_dim, "group.action.vector_dim (with scale=...)"
    elif not action.discrete:
        advice = "pass scale=LearnedScale(...) to give the location alone"
        meaning = f"group.action.n_parameters (location and scale; {advice})"
        split = NormalParamExtractor(scale_lb=1e-3)  # pyright: ignore[reportArgumentType]  # a float is a Number
    if value_head:
        out_keys, split = [*out_keys, keys.state_value], ValueHead(split)
        size, meaning = size + 1, f"{meaning}, and one for the value"
    return AgentNetwork(
        inputs,
        network,
        out_keys,
        hidden_key=actor_hidden_key(keys, inputs),
        split=split,
        output_size=OutputSize(group.n_agents, size, meaning),
    )


def _distribution(
    group: GroupSpec, floor: EpsilonFloor | None
) -> tuple[Callable[..., Distribution], dict[str, Any], dict[str, Key]]:
    """The distribution of the group's actions, its constant arguments, and the keys of the others."""
    keys, action = group.keys, group.action
    if not action.discrete:
        bounds = {"low": torch.tensor(action.low), "high": torch.tensor(action.high)}
        return TanhNormal, bounds, {"loc": keys.loc, "scale": keys.scale}
    in_keys: dict[str, Key] = {"logits": keys.logits}
    if group.action_mask:
        in_keys["mask"] = keys.action_mask
    if floor is not None:
        return floor.distribution, {}, in_keys
    if action.kind == "multi_discrete":
        return MaskedMultiCategorical, {"sizes": action.sizes}, in_keys
    return MaskedCategorical, {"one_hot": action.kind == "one_hot"}, in_keys
