"""Critics in which each agent attends to the other agents (MAAC)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.keys import Key
from ctde_kit.modules.argument_checks import built_network, check_team_and_group
from ctde_kit.modules.critics.agent_attention import AgentAttention
from ctde_kit.modules.critics.stored_actions import groups_that_act, with_action_vectors
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.agent_network import NetworkFactory
from ctde_kit.modules.networks.inputs import Input, entry
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.modules.networks.sharing import ShareParams
from ctde_kit.modules.networks.sizes import OutputSize
from ctde_kit.specs import GroupSpec, TeamSpec


class AttentionCritic(TensorDictModuleBase):
    """A critic of states or actions whose value for each agent attends to all other agents (MAAC).

    Iqbal & Sha 2019, "Actor-Attention-Critic for Multi-Agent Reinforcement Learning", eqs. 4 to 6: ``e_j`` embeds the
    observation of agent j of any group and, in a critic of actions, its action; ``value_i = f(e_i, attended_i)``, where
    ``attended_i`` is the sum of the other agents' embeddings, weighted by multi-head attention. Each group has its own
    encoder, so the groups may have any sizes. With shared parameters and no agent id, permuted agents get permuted
    values.

    Reads ``(group, "observation")`` ``[*B, n_agents, F]`` of every group, ``(group, "mask")`` if agents die, and with
    ``of_actions`` ``(group, "action_vector")`` ``[*B, n_agents, D]``, or where there are none, ``(group, "action")``.
    Writes ``(group, "state_value")``, or with ``of_actions`` ``(group, "state_action_value")``, ``[*B, n_agents, 1]``;
    and ``(group, "attention_weight")`` ``[*B, n_agents, N]`` without a gradient: how much each agent attends to each of
    the team's N agents, in the team's order, as the mean over heads. Rows sum to 1; dead agents and the agent itself
    get 0. The last agent alive attends to itself. A dead agent's row is over the living, and all 0 if there are none.

    Differences from the paper: ``f`` gives the value of the action that is taken, not one value per action, so
    continuous actions fit and ``e_i`` contains agent i's own action; agents may share encoders and ``f``; there is also
    a critic of states; there is no batch normalization.

    Args:
        team: all groups.
        group: the group whose returns it predicts.
        make_network: ``(in_features, out_features, n_agents) -> network``, makes ``f``; feed-forward.
        of_actions: a critic of actions, otherwise of states.
        embed_dim: features of an embedding.
        n_heads: of the attention.
        share_params: of the encoders, as in ``MultiAgentMLP``.
        activation_class: makes the encoders' activation.
        agent_id: append the agent's index to what is embedded.
        normalize: normalize what is embedded.

    Raises:
        UserError: for a number of heads that does not divide ``embed_dim``.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import AttentionCritic, MultiAgentMLP
    >>> from ctde_kit.specs import TeamSpec
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
        activation_class: Callable[[], nn.Module] = nn.LeakyReLU,
        agent_id: bool = False,
        normalize: bool = False,
    ):
        super().__init__()
        check_team_and_group("AttentionCritic", team, group)
        self.team, self.group = team, group
        inputs = [_input(other, of_actions, agent_id, normalize) for other in team]
        self.inputs = nn.ModuleList(inputs)
        self.encoders = nn.ModuleList(
            AgentLinear(group_input.features, embed_dim, group_input.n_agents, share_params) for group_input in inputs
        )
        self.activation = activation_class()
        self.attention = AgentAttention(embed_dim, n_heads)
        self.head = built_network("AttentionCritic", make_network, 2 * embed_dim, 1, group.n_agents)
        keys = group.keys
        self.value_key = keys.state_action_value if of_actions else keys.state_value
        read = list(dict.fromkeys(key for group_input in inputs for key in group_input.in_keys))
        self.acting = groups_that_act(team.groups, read)
        self.in_keys = [*read, *(other.keys.action for other in self.acting)]
        self.out_keys = [self.value_key, keys.attention_weight]
        self._index = team.groups.index(group)
        self._first = sum(other.n_agents for other in team.groups[: self._index])

    @property
    def in_entries(self) -> list[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        return [entry for other in self.team for entry in GroupEntries.of(other).by_key().values()]

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        inputs = with_action_vectors(self.acting, tensordict)
        embeddings = [self._embedded(inputs, index) for index in range(len(self.encoders))]
        value, weight = self._value(inputs, embeddings[self._index], embeddings)
        tensordict.set(self.value_key, value)
        return tensordict.set(self.group.keys.attention_weight, weight.detach().mean(-3))

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """Each agent's value ``[*K, *B, n_agents, 1]`` if it alone takes its action in ``action``.

        The other agents' actions are those in ``tensordict`` ``[*B]``. No agent attends to itself, so only its own
        embedding differs: one pass serves all agents.
        """
        tensordict = tensordict.expand(action.shape[:-2])
        embeddings = [self._embedded(tensordict, index) for index in range(len(self.encoders))]
        changed = tensordict.copy().set(self.group.keys.action_vector, action)
        return self._value(tensordict, self._embedded(changed, self._index), embeddings)[0]

    def _embedded(self, tensordict: TensorDictBase, index: int) -> Tensor:
        return self.activation(self.encoders[index](self.inputs[index](tensordict)))

    def _value(self, tensordict: TensorDictBase, own: Tensor, embeddings: list[Tensor]) -> tuple[Tensor, Tensor]:
        team = embeddings[0] if len(embeddings) == 1 else torch.cat(embeddings, -2)
        attended, weight = self.attention(own, team, self._alive(tensordict, embeddings), self._first)
        features = torch.cat([own, attended], -1)
        value = self.head(features)
        OutputSize(self.group.n_agents, 1, "one value per agent").check(self.head, features, value)
        return value, weight

    def _alive(self, tensordict: TensorDictBase, embeddings: list[Tensor]) -> Tensor | None:
        """Which agents of the team are alive, bool ``[*B, N]``; ``None`` if no group has a mask."""
        if not any(group.mask for group in self.team):
            return None
        parts = []
        for group, embedded in zip(self.team, embeddings, strict=True):
            all_alive = torch.ones(embedded.shape[:-1], dtype=torch.bool, device=embedded.device)
            parts.append(entry(tensordict, group.keys.mask) if group.mask else all_alive)
        return torch.cat(parts, -1)


def _input(group: GroupSpec, of_actions: bool, agent_id: bool, normalize: bool) -> Input:
    mask = group.keys.mask if group.mask else None
    parts: list[tuple[Key, Key | None, int]] = [(group.keys.observation, mask, 0)]
    features = group.observation_dim
    if of_actions:
        parts.append((group.keys.action_vector, mask, 0))
        features += group.action.vector_dim
    return Input(parts, group.n_agents, features, agent_id=agent_id, normalize=normalize)
