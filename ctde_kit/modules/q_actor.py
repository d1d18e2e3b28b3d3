"""Decentralized action values, and the actions that they choose."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import TensorDictPrimer
from torchrl.envs.utils import ExplorationType, exploration_type

from ctde_kit.errors import UserError
from ctde_kit.modules.inputs import Input, entry
from ctde_kit.modules.network import AgentNetwork, actor_hidden_key
from ctde_kit.modules.team_channel import TeamInput
from ctde_kit.specs import GroupSpec


class MultiAgentQActor(TensorDictModuleBase):
    """Values of each agent's actions, and the action that is best or, while exploring, sometimes a random one.

    Reads ``inputs``, the action mask and which agents are alive, where the group has them. Writes ``(group,
    "action_value")`` ``[*B, n_agents, A]``, ``(group, "chosen_action_value")`` ``[*B, n_agents, 1]`` and ``(group,
    "action")``. Under ``ExplorationType.RANDOM``, which collectors set, each agent tosses a coin of its own and with
    probability ``epsilon`` takes a random one of its allowed actions; else it takes the best allowed one. TorchRL's
    ``EGreedyModule`` tosses one coin for the whole team. An agent that is dead or allowed nothing takes action 0, the
    no-op. ``epsilon`` is a buffer, so it is saved with the module.

    Args:
        group: the group's spec.
        inputs: what each agent sees, usually ``own_observation(group)``.
        network: ``[*B, n_agents, F] -> [*B, n_agents, A]``.
        epsilon: the probability of a random action, a ratio.

    Raises:
        UserError: where actions are neither categorical nor one-hot.

    >>> from ctde_kit.envs.games import MatrixGameEnv
    >>> from ctde_kit.modules import MultiAgentMLP, own_observation
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
        check_discrete(group)
        keys = group.keys
        module = AgentNetwork(inputs, network, [keys.action_value], hidden_key=actor_hidden_key(keys, inputs))
        self._assemble(group, module, torch.tensor(float(epsilon)))

    def _assemble(self, group: GroupSpec, module: AgentNetwork, epsilon: Tensor) -> None:
        keys = group.keys
        self.group, self.agent_network = group, module
        self.register_buffer("epsilon", epsilon)
        masks = [keys.action_mask] * group.action_mask + [keys.mask] * group.mask
        self.in_keys = list(dict.fromkeys([*module.in_keys, *masks]))
        self.out_keys = [*module.out_keys, keys.chosen_action_value, keys.action]

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        return self.agent_network.decentralized

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return self.choose(self.agent_network(tensordict))

    def choose(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action, and its value, by the action values that are there."""
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
        """The index ``[*B, n_agents]`` of each agent's best allowed action, by the action values that are there."""
        return self._best(entry(tensordict, self.group.keys.action_value), tensordict)

    def _best(self, values: Tensor, tensordict: TensorDictBase) -> Tensor:
        keys = self.group.keys
        if self.group.action_mask:
            # A row that allows nothing is all minus infinity, whose argmax is 0, the no-op.
            values = values.masked_fill(~entry(tensordict, keys.action_mask), -torch.inf)
        index = values.argmax(-1)
        if self.group.mask:
            index = index.masked_fill(~entry(tensordict, keys.mask), 0)
        return index

    def encode(self, index: Tensor) -> Tensor:
        """Indices ``[*B, n_agents]`` as the env takes actions."""
        return self.one_hot(index) if self.group.action.kind == "one_hot" else index

    def index(self, action: Tensor) -> Tensor:
        """Actions as the env takes them as indices ``[*B, n_agents]``."""
        return action.int().argmax(-1) if self.group.action.kind == "one_hot" else action

    def one_hot(self, index: Tensor) -> Tensor:
        """Indices ``[*B, n_agents]`` one-hot, ``[*B, n_agents, A]``."""
        return nn.functional.one_hot(index, self.group.action.sizes[0])

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
    """Slice ``agent`` of a multi-agent Q actor: every entry without the agent axis.

    A recurrent one reads and writes its hidden state ``[*B, 1, H]``.
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, actor: MultiAgentQActor, agent: int):
        super().__init__()
        joint = MultiAgentQActor.__new__(MultiAgentQActor)
        TensorDictModuleBase.__init__(joint)
        joint._assemble(actor.group, actor.agent_network.for_agent(agent), actor.epsilon)
        self.actor = joint
        self.in_keys, self.out_keys = joint.in_keys, joint.out_keys

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = self.actor.group.keys
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


def check_discrete(group: GroupSpec) -> None:
    """Raise ``UserError`` unless an agent of the group picks one of N actions."""
    kind = group.action.kind
    if kind == "continuous":
        raise UserError(
            f"group {group.name!r} has continuous actions: QMIX needs discrete actions; the task has it as "
            "`task.continuous_actions=false`"
        )
    if kind not in ("categorical", "one_hot"):
        raise UserError(
            f"group {group.name!r} has actions of kind {kind!r}: QMIX needs one choice an agent, categorical or "
            "one_hot; use another task, or ctde-mappo"
        )
