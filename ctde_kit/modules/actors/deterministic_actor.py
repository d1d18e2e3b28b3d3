"""Deterministic policies of one group, for MADDPG."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Composite
from torchrl.envs import TensorDictPrimer
from torchrl.envs.utils import ExplorationType, exploration_type

from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.modules.actors.action_vectors import as_action, gumbel_like, hard, masked_logits, straight_through
from ctde_kit.modules.actors.noise import ActionNoise
from ctde_kit.modules.actors.sub_policy_draw import SubPolicyDraw
from ctde_kit.modules.argument_checks import check_actor_arguments, check_one_agent
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.agent_network import AgentNetwork, actor_hidden_key
from ctde_kit.modules.networks.inputs import Input, entry
from ctde_kit.modules.networks.sizes import OutputSize
from ctde_kit.modules.networks.team_input import TeamInput
from ctde_kit.specs import GroupSpec


class MultiAgentDeterministicActor(TensorDictModuleBase):
    """One action per agent from its own observation, with noise while exploring (Lowe et al. 2017, section 4.1).

    Reads ``inputs`` and, if the group has one, the action mask. Writes the network's output, ``(group, "loc")``
    ``[*B, n_agents, D]`` or ``(group, "logits")`` ``[*B, n_agents, N]``, and ``(group, "action")`` in the env's form.
    Continuous actions are the output squashed by tanh into the action's bounds; discrete actions are the best allowed
    choice by the logits. Under ``ExplorationType.RANDOM``, which collectors set, it adds ``noise`` and clips continuous
    actions to the bounds: the action that is written is the one that is executed.

    Args:
        group: the group's spec.
        inputs: what each agent sees, usually ``own_observation(group)``.
        network: ``[*B, n_agents, F] -> [*B, n_agents, group.action.vector_dim]``.
        noise: ``GaussianNoise``, ``OrnsteinUhlenbeckNoise`` or ``GumbelNoise``; ``None``: the actor never explores.
        temperature: of the softmax that gives discrete actions their gradient in a loss.
        sub_policies: draws which sub-policy of ``SubPolicies`` each agent follows; ``None``: each agent has one policy.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import GaussianNoise, MultiAgentDeterministicActor, MultiAgentMLP, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("navigation", num_envs=5)
    >>> group = TeamSpec.from_env(env)["agents"]
    >>> inputs = own_observation(group)
    >>> network = MultiAgentMLP(inputs.features, group.action.vector_dim, group.n_agents)
    >>> actor = MultiAgentDeterministicActor(group, inputs, network, GaussianNoise(group, 0.1))
    >>> actor(env.reset())["agents", "action"].shape
    torch.Size([5, 4, 2])
    """

    low: Tensor
    high: Tensor
    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(
        self,
        group: GroupSpec,
        inputs: Input | TeamInput,
        network: nn.Module,
        noise: ActionNoise | None = None,
        *,
        temperature: float = 1.0,
        sub_policies: SubPolicyDraw | None = None,
    ):
        super().__init__()
        check_actor_arguments("MultiAgentDeterministicActor", group, inputs, network, "vector_dim")
        keys = group.keys
        self.group, self.output_key = group, keys.logits if group.action.discrete else keys.loc
        hidden_key = actor_hidden_key(keys, inputs)
        size = OutputSize(group.n_agents, group.action.vector_dim, "group.action.vector_dim")
        self.agent_network = AgentNetwork(inputs, network, [self.output_key], hidden_key=hidden_key, output_size=size)
        self.register_buffer("low", torch.tensor(group.action.low), persistent=False)
        self.register_buffer("high", torch.tensor(group.action.high), persistent=False)
        self.noise, self.temperature, self.sub_policies = noise, temperature, sub_policies
        carried = [key for part in (noise, sub_policies) if part is not None for key in part.in_keys]
        self.in_keys = list(
            dict.fromkeys([*self.agent_network.in_keys, *[keys.action_mask] * group.action_mask, *carried])
        )
        self.out_keys = [*self.agent_network.out_keys, keys.action]
        self.out_keys += [] if sub_policies is None else sub_policies.out_keys

    @property
    def in_entries(self) -> list[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        return [*self.agent_network.in_entries, *GroupEntries.of(self.group).by_key().values()]

    @property
    def spec(self) -> Composite:
        """The spec of its actions, ``[n_agents, ...]``."""
        return self.group.action_spec

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        return self.agent_network.decentralized

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self.sub_policies is not None:
            tensordict = self.sub_policies(tensordict)
        return self.choose(self.agent_network(tensordict))

    def choose(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action that follows from the network's output, which ``tensordict`` holds."""
        output = self._output(tensordict)
        if not self.group.action.discrete:
            output = self._squash(output)
        if self.noise is not None and exploration_type() == ExplorationType.RANDOM:
            output = self.noise(tensordict, output)
        if not self.group.action.discrete:
            output = torch.minimum(torch.maximum(output, self.low), self.high)
        return tensordict.set(self.group.keys.action, as_action(self.group.action, output))

    def greedy_vector(self, tensordict: TensorDictBase) -> Tensor:
        """Each agent's action without noise as a vector ``[*B, n_agents, vector_dim]``, one-hot if discrete."""
        output = self._output(tensordict)
        return hard(self.group.action, output) if self.group.action.discrete else self._squash(output)

    def differentiable_vector(self, tensordict: TensorDictBase) -> Tensor:
        """Each agent's action as a vector with a gradient.

        Discrete actions are samples of the softmax, one-hot, with the gradient of the softmax at ``temperature`` (the
        straight-through Gumbel-softmax of Jang et al. 2017, section 2.2).
        """
        output = self._output(tensordict)
        if not self.group.action.discrete:
            return self._squash(output)
        return straight_through(self.group.action, output + gumbel_like(output), self.temperature)

    def _output(self, tensordict: TensorDictBase) -> Tensor:
        output = entry(tensordict, self.output_key)
        mask = entry(tensordict, self.group.keys.action_mask) if self.group.action_mask else None
        return masked_logits(self.group.action, output, mask)

    def _squash(self, loc: Tensor) -> Tensor:
        return self.low + (self.high - self.low) / 2 * (loc.tanh() + 1)

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the hidden state of a recurrent actor."""
        return self.agent_network.make_tensordict_primer()

    def for_agent(self, agent: int) -> SingleAgentDeterministicActor:
        """The policy of one agent alone, on the same storage: ``(group, "observation")`` ``[*B, F]`` in, action out.

        Raises:
            UserError: for an index that the group lacks, or a policy that is not decentralized.
        """
        self.group.check_agent(agent)
        return SingleAgentDeterministicActor(self, agent)


class SingleAgentDeterministicActor(TensorDictModuleBase):
    """The policy of one agent of a ``MultiAgentDeterministicActor``: every entry is without the agent axis.

    It never explores. A recurrent one reads and writes its hidden state ``[*B, 1, H]``. One with sub-policies reads
    which of them it follows, ``(group, "sub_policy")`` int64 ``[*B]``; the caller draws it when an episode starts.

    Args:
        actor: the group's policy, whose parameters it shares.
        agent: the agent's index in the group.
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, actor: MultiAgentDeterministicActor, agent: int):
        super().__init__()
        single = actor.agent_network.for_agent(agent)
        self.actor = MultiAgentDeterministicActor(actor.group.for_agent(agent), single.inputs, single.network)
        # The group's bounds, so that they are on its device.
        self.actor.low, self.actor.high = actor.low[agent : agent + 1], actor.high[agent : agent + 1]
        self.in_keys, self.out_keys = self.actor.in_keys, self.actor.out_keys

    @property
    def spec(self) -> Composite:
        """The spec of its action, without an agent axis."""
        return Composite({self.actor.group.name: Composite({"action": self.actor.group.action.tensor_spec(None)})})

    @keyword_calls(agent_axis=0)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = self.actor.group.keys
        check_one_agent(tensordict, self.actor.agent_network.inputs.in_keys)
        output = self.actor.agent_network(tensordict.copy())
        mask = tensordict.get(keys.action_mask, None)
        if mask is not None:
            output.set(keys.action_mask, mask.unsqueeze(tensordict.ndim))
        output = self.actor.choose(output)
        for key in self.out_keys:
            value = output.get(key)
            is_hidden = str(key[-1]).endswith("_hidden")
            tensordict.set(key, value if is_hidden else value.squeeze(tensordict.ndim))
        return tensordict
