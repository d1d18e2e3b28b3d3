"""Decentralized deterministic policies."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import TensorDictPrimer
from torchrl.envs.utils import ExplorationType, exploration_type

from ctde_kit.keys import Key
from ctde_kit.modules.actors.action_vectors import allowed, as_action, gumbel_like, hard, straight_through
from ctde_kit.modules.networks.inputs import Input, entry
from ctde_kit.modules.networks.agent_network import AgentNetwork, actor_hidden_key
from ctde_kit.modules.networks.sub_policies import SubPolicyDraw
from ctde_kit.modules.communication.team_channel import TeamInput
from ctde_kit.specs import GroupSpec


class MultiAgentDeterministicActor(TensorDictModuleBase):
    """One action an agent from its own observation, with noise while exploring (Lowe et al. 2017, section 4.1).

    Reads ``inputs`` and, where the group has one, the action mask. Continuous actions are ``(group, "loc")``
    ``[*B, n_agents, D]`` squashed by tanh into the action's bounds; discrete ones the best allowed choice by
    ``(group, "logits")`` ``[*B, n_agents, N]``. Writes this output and ``(group, "action")`` as the env takes it. Under
    ``ExplorationType.RANDOM``, which collectors set, ``noise`` comes on top, and what leaves the bounds is clipped to
    them: the action that is written is the one that is executed.

    Args:
        group: the group's spec.
        inputs: what each agent sees, usually ``own_observation(group)``.
        network: ``[*B, n_agents, F] -> [*B, n_agents, group.action.vector_dim]``.
        noise: ``GaussianNoise``, ``OrnsteinUhlenbeckNoise`` or ``GumbelNoise``; ``None``: never explores.
        temperature: of the softmax whose gradient discrete actions get in a loss.
        sub_policies: draws which sub-policy of ``SubPolicies`` each agent follows; ``None``: it has one policy.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import GaussianNoise, MultiAgentMLP, own_observation
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
        noise: nn.Module | None = None,
        *,
        temperature: float = 1.0,
        sub_policies: SubPolicyDraw | None = None,
    ):
        super().__init__()
        keys = group.keys
        output_key = keys.logits if group.action.discrete else keys.loc
        module = AgentNetwork(inputs, network, [output_key], hidden_key=actor_hidden_key(keys, inputs))
        self._assemble(group, module, output_key, torch.tensor(group.action.low), torch.tensor(group.action.high))
        self.noise, self.temperature, self.sub_policies = noise, temperature, sub_policies
        carried = [key for part in (noise, sub_policies) for key in getattr(part, "in_keys", [])]
        self.in_keys = list(dict.fromkeys([*self.in_keys, *carried]))
        self.out_keys += [] if sub_policies is None else sub_policies.out_keys

    def _assemble(self, group: GroupSpec, module: AgentNetwork, output_key: Key, low: Tensor, high: Tensor) -> None:
        self.group, self.agent_network, self.output_key = group, module, output_key
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.noise, self.temperature, self.sub_policies = None, 1.0, None
        self.in_keys = [*module.in_keys, *[group.keys.action_mask] * group.action_mask]
        self.out_keys = [*module.out_keys, group.keys.action]

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        return self.agent_network.decentralized

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self.sub_policies is not None:
            tensordict = self.sub_policies(tensordict)
        return self.choose(self.agent_network(tensordict))

    def choose(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action by the network's output that is there."""
        explores = self.noise is not None and exploration_type() == ExplorationType.RANDOM
        output = self._output(tensordict)
        if not self.group.action.discrete:
            output = self._squash(output)
        if explores:
            output = self.noise(tensordict, output)  # pyright: ignore[reportOptionalCall]
        if not self.group.action.discrete:
            output = torch.minimum(torch.maximum(output, self.low), self.high)
        return tensordict.set(self.group.keys.action, as_action(self.group.action, output))

    def greedy_vector(self, tensordict: TensorDictBase) -> Tensor:
        """Each agent's action without noise as a vector ``[*B, n_agents, vector_dim]``, hard where it is discrete."""
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
        return allowed(self.group.action, output, mask)

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
    """Slice ``agent`` of a deterministic actor: every entry without the agent axis; it never explores.

    A recurrent one reads and writes its hidden state ``[*B, 1, H]``. One with sub-policies reads which it follows,
    ``(group, "sub_policy")`` int64 ``[*B]``, which the caller draws when an episode starts.
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, actor: MultiAgentDeterministicActor, agent: int):
        super().__init__()
        joint = MultiAgentDeterministicActor.__new__(MultiAgentDeterministicActor)
        TensorDictModuleBase.__init__(joint)
        low, high = actor.low[agent : agent + 1], actor.high[agent : agent + 1]
        joint._assemble(actor.group, actor.agent_network.for_agent(agent), actor.output_key, low, high)
        self.actor = joint
        self.in_keys, self.out_keys = joint.in_keys, joint.out_keys

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = self.actor.group.keys
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
