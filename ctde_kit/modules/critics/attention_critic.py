"""Critics in which each agent's value attends to the other agents."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from ctde_kit.keys import Key
from ctde_kit.modules.critics.agent_attention import AgentAttention
from ctde_kit.modules.networks.agent_network import NetworkFactory
from ctde_kit.modules.networks.inputs import Input, entry
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.modules.networks.sharing import ShareParams
from ctde_kit.specs import GroupSpec, TeamSpec


class AttentionCritic(TensorDictModuleBase):
    """A value of each agent, of its own data and of what it gathers of all others by attention (MAAC).

    Iqbal & Sha 2019, "Actor-Attention-Critic for Multi-Agent Reinforcement Learning", eqs. 4 to 6: ``e_j`` embeds what
    agent j of any group observes and, in a critic of actions, does; ``value_i = f(e_i, attended_i)``, ``attended_i`` as
    ``AgentAttention`` has it. Each group's observations have an encoder of their own, so groups of any sizes fit. With
    shared parameters and no agent id the values of permuted agents are the permuted values.

    Reads of every group ``(group, "observation")`` ``[*B, n_agents, F]``, ``(group, "mask")`` where agents die, and
    with ``of_actions`` ``(group, "action_vector")`` ``[*B, n_agents, D]``. Writes ``(group, "state_value")``, or
    ``(group, "state_action_value")`` of actions, ``[*B, n_agents, 1]``, and ``(group, "attention_weight")`` ``[*B,
    n_agents, N]`` without a gradient, the mean over heads: how much each agent attends to each of the N agents of the
    team, group by group, in the team's order. Rows sum to 1, dead agents and the agent itself get 0; the last agent
    alive attends to itself. A dead agent's row is that over the living, all 0 where there are none.

    Differs from the paper: ``f`` gives the value of the action that is taken and not one of each action, so that
    continuous actions fit and ``e_i`` knows agent i's own action; encoders and ``f`` may be shared by agents; there is
    a critic of states, too; and no batch normalization.

    Args:
        team: all groups.
        group: the group whose returns it predicts.
        make_network: ``(in_features, out_features, n_agents) -> network``, which makes ``f``; feed-forward.
        of_actions: a critic of actions, else of states.
        embed_dim: features of an embedding.
        n_heads: of the attention.
        share_params: of the encoders, as in ``AgentLinear``.
        activation_class: of the encoders.
        agent_id: append the agent's index to what is embedded.
        normalize: normalize what is embedded.

    Raises:
        UserError: for a number of heads that does not divide ``embed_dim``.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import MultiAgentMLP
    >>> env = VmasEnv("simple_tag", num_envs=5)
    >>> team = TeamSpec.from_env(env)
    >>> data = AttentionCritic(team, team["adversary"], MultiAgentMLP)(env.reset())
    >>> data["adversary", "state_value"].shape, data["adversary", "attention_weight"].shape
    (torch.Size([5, 3, 1]), torch.Size([5, 3, 4]))
    """

    in_keys: list[Key]
    out_keys: list[Key]
    swaps_own_action = True
    hidden_key: Key | None = None

    def __init__(
        self,
        team: TeamSpec,
        group: GroupSpec,
        make_network: NetworkFactory,
        *,
        of_actions: bool = False,
        embed_dim: int = 64,
        n_heads: int = 4,
        share_params: ShareParams = True,
        activation_class: type[nn.Module] = nn.LeakyReLU,
        agent_id: bool = False,
        normalize: bool = False,
    ):
        super().__init__()
        self.team, self.group = team, group
        inputs = [_input(other, of_actions, agent_id, normalize) for other in team]
        self.inputs = nn.ModuleList(inputs)
        self.encoders = nn.ModuleList(
            AgentLinear(seen.features, embed_dim, seen.n_agents, share_params) for seen in inputs
        )
        self.activation = activation_class()
        self.attention = AgentAttention(embed_dim, n_heads)
        self.head = make_network(2 * embed_dim, 1, group.n_agents)
        keys = group.keys
        self.value_key = keys.state_action_value if of_actions else keys.state_value
        self.in_keys = list(dict.fromkeys(key for seen in inputs for key in seen.in_keys))
        self.out_keys = [self.value_key, keys.attention_weight]
        self._index = team.groups.index(group)
        self._first = sum(other.n_agents for other in team.groups[: self._index])

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        embeddings = [self._embedded(tensordict, index) for index in range(len(self.encoders))]
        value, weight = self._value(tensordict, embeddings[self._index], embeddings)
        tensordict.set(self.value_key, value)
        return tensordict.set(self.group.keys.attention_weight, weight.detach().mean(-3))

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """The value ``[*B, n_agents, 1]`` for each agent where it alone takes another action ``[*B, n_agents, D]``.

        Nobody attends to itself, so only the agent's own embedding differs: one pass serves all agents.
        """
        embeddings = [self._embedded(tensordict, index) for index in range(len(self.encoders))]
        changed = tensordict.copy().set(self.group.keys.action_vector, action)
        return self._value(tensordict, self._embedded(changed, self._index), embeddings)[0]

    def _embedded(self, tensordict: TensorDictBase, index: int) -> Tensor:
        return self.activation(self.encoders[index](self.inputs[index](tensordict)))

    def _value(self, tensordict: TensorDictBase, own: Tensor, embeddings: list[Tensor]) -> tuple[Tensor, Tensor]:
        team = embeddings[0] if len(embeddings) == 1 else torch.cat(embeddings, -2)
        attended, weight = self.attention(own, team, self._alive(tensordict, embeddings), self._first)
        return self.head(torch.cat([own, attended], -1)), weight

    def _alive(self, tensordict: TensorDictBase, embeddings: list[Tensor]) -> Tensor | None:
        """Who of the team is alive, bool ``[*B, N]``; ``None`` where nobody dies."""
        if not any(group.mask for group in self.team):
            return None
        parts = []
        for group, embedded in zip(self.team, embeddings, strict=True):
            everyone = torch.ones(embedded.shape[:-1], dtype=torch.bool, device=embedded.device)
            parts.append(entry(tensordict, group.keys.mask) if group.mask else everyone)
        return torch.cat(parts, -1)


def _input(group: GroupSpec, of_actions: bool, agent_id: bool, normalize: bool) -> Input:
    mask = group.keys.mask if group.mask else None
    parts: list[tuple[Key, Key | None, int]] = [(group.keys.observation, mask, 0)]
    features = group.observation_dim
    if of_actions:
        parts.append((group.keys.action_vector, mask, 0))
        features += group.action.vector_dim
    return Input(parts, group.n_agents, features, agent_id=agent_id, normalize=normalize)
