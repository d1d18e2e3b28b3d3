"""Policies of one group that choose actions by learned action values, for QMIX and its relatives."""

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
from ctde_kit.modules.argument_checks import check_actor_arguments, check_one_agent
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.agent_network import AgentNetwork, actor_hidden_key
from ctde_kit.modules.networks.inputs import Input, entry
from ctde_kit.modules.networks.sizes import OutputSize
from ctde_kit.modules.networks.team_input import TeamInput
from ctde_kit.specs import GroupSpec, one_hot


class MultiAgentQActor(TensorDictModuleBase):
    """Values of each agent's actions, and an epsilon-greedy choice among them.

    Reads ``inputs``, and the action mask and the mask of living agents if the group has them. Writes ``(group,
    "action_value")`` ``[*B, n_agents, A]``, ``(group, "chosen_action_value")`` ``[*B, n_agents, 1]`` and ``(group,
    "action")``. Under ``ExplorationType.RANDOM``, which collectors set, each agent decides by itself: with probability
    ``epsilon`` it takes a random allowed action, otherwise the best allowed one. TorchRL's ``EGreedyModule`` decides
    once for the whole team. An agent that is dead or allowed nothing takes action 0, the no-op. ``epsilon`` is a
    buffer, so it is saved with the module.

    Args:
        group: the group's spec.
        inputs: what each agent sees, usually ``own_observation(group)``.
        network: ``[*B, n_agents, F] -> [*B, n_agents, A]``.
        epsilon: the probability of a random action, in [0, 1].

    Raises:
        UserError: where actions are neither categorical nor one-hot.

    >>> from ctde_kit.envs.games import MatrixGameEnv
    >>> from ctde_kit.modules import MultiAgentMLP, MultiAgentQActor, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = MatrixGameEnv(5, [[11, -30, 0], [-30, 7, 0], [0, 6, 5]])
    >>> group = TeamSpec.from_env(env)["agents"]
    >>> actor = MultiAgentQActor(group, own_observation(group), MultiAgentMLP(1, 3, n_agents=2))
    >>> data = actor(env.reset())
    >>> data["agents", "action_value"].shape, data["agents", "action"].shape
    (torch.Size([5, 2, 3]), torch.Size([5, 2]))
    """

    epsilon: Tensor
    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, group: GroupSpec, inputs: Input | TeamInput, network: nn.Module, epsilon: float = 0.0):
        super().__init__()
        check_actor_arguments("MultiAgentQActor", group, inputs, network, "n_parameters")
        group.check_one_choice("Q-learning")
        keys = group.keys
        self.group = group
        hidden_key = actor_hidden_key(keys, inputs)
        size = OutputSize(group.n_agents, group.action.sizes[0], "the number of actions, group.action.n_parameters")
        self.agent_network = AgentNetwork(inputs, network, [keys.action_value], hidden_key=hidden_key, output_size=size)
        self.register_buffer("epsilon", torch.tensor(float(epsilon)))
        masks = [keys.action_mask] * group.action_mask + [keys.mask] * group.mask
        self.in_keys = list(dict.fromkeys([*self.agent_network.in_keys, *masks]))
        self.out_keys = [*self.agent_network.out_keys, keys.chosen_action_value, keys.action]

    @property
    def in_entries(self) -> list[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        return [*self.agent_network.in_entries, *GroupEntries.of(self.group).by_key().values()]

    @property
    def spec(self) -> Composite:
        """The spec of its actions, ``[n_agents, ...]``."""
        return self.group.action_spec

    @property
    def action_space(self) -> str:
        """The kind of its actions, as TorchRL's ``DQNLoss`` and ``QMixerLoss`` call it."""
        return self.group.action.kind

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        return self.agent_network.decentralized

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return self.choose(self.agent_network(tensordict))

    def choose(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action that follows from the action values that ``tensordict`` holds, and its value."""
        keys = self.group.keys
        values = tensordict.get(keys.action_value)
        index = self.greedy(tensordict)
        if exploration_type() == ExplorationType.RANDOM:
            random = self._best(torch.rand_like(values), tensordict)
            explores = torch.rand(index.shape, device=index.device) < self.epsilon
            index = torch.where(explores, random, index)
        tensordict.set(keys.chosen_action_value, values.gather(-1, index.unsqueeze(-1)))
        return tensordict.set(keys.action, self.encode(index))

    def greedy(self, tensordict: TensorDictBase) -> Tensor:
        """The index ``[*B, n_agents]`` of each agent's best allowed action, by the action values in ``tensordict``."""
        return self._best(entry(tensordict, self.group.keys.action_value), tensordict)

    def _best(self, values: Tensor, tensordict: TensorDictBase) -> Tensor:
        keys = self.group.keys
        if self.group.action_mask:
            # Where nothing is allowed, all values are minus infinity; their argmax is 0, the no-op.
            values = values.masked_fill(~entry(tensordict, keys.action_mask), -torch.inf)
        index = values.argmax(-1)
        if self.group.mask:
            index = index.masked_fill(~entry(tensordict, keys.mask), 0)
        return index

    def encode(self, index: Tensor) -> Tensor:
        """Actions in the env's form, from indices ``[*B, n_agents]``."""
        return self.one_hot(index) if self.group.action.kind == "one_hot" else index

    def index(self, action: Tensor) -> Tensor:
        """Indices ``[*B, n_agents]``, from actions in the env's form."""
        return action.int().argmax(-1) if self.group.action.kind == "one_hot" else action

    def one_hot(self, index: Tensor) -> Tensor:
        """One-hot vectors ``[*B, n_agents, A]``, from indices ``[*B, n_agents]``."""
        return one_hot(index, self.group.action.sizes[0]).long()

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the hidden state of a recurrent actor."""
        return self.agent_network.make_tensordict_primer()

    def for_agent(self, agent: int) -> SingleAgentQActor:
        """The policy of one agent alone, on the same storage: ``(group, "observation")`` ``[*B, F]`` in, action out.

        Raises:
            UserError: for an index that the group lacks, or a policy that is not decentralized.
        """
        self.group.check_agent(agent)
        return SingleAgentQActor(self, agent)


class SingleAgentQActor(TensorDictModuleBase):
    """The policy of one agent of a ``MultiAgentQActor``: every entry is without the agent axis.

    A recurrent one reads and writes its hidden state ``[*B, 1, H]``.

    Args:
        actor: the group's policy, whose parameters and ``epsilon`` it shares.
        agent: the agent's index in the group.
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, actor: MultiAgentQActor, agent: int):
        super().__init__()
        single = actor.agent_network.for_agent(agent)
        self.actor = MultiAgentQActor(actor.group.for_agent(agent), single.inputs, single.network)
        self.actor.epsilon = actor.epsilon
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
        for key in (keys.action_mask, keys.mask):
            value = tensordict.get(key, None)
            if value is not None:
                output.set(key, value.unsqueeze(tensordict.ndim))
        output = self.actor.choose(output)
        for key in self.out_keys:
            value = output.get(key)
            is_hidden = str(key[-1]).endswith("_hidden")
            tensordict.set(key, value if is_hidden else value.squeeze(tensordict.ndim))
        return tensordict
