"""What a network sees: each agent's own data, the team's, or a global state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.entries import required_entry as entry
from ctde_kit.entry_tables import Entry, GroupEntries, state_entry
from ctde_kit.errors import UserError
from ctde_kit.keys import LATENT, STATE, GroupKeys, Key
from ctde_kit.modules.networks.columns import latent_columns, latent_entry, part_columns, wrong_agents, wrong_sizes
from ctde_kit.modules.networks.own_first import own_first_columns
from ctde_kit.specs import GroupSpec, TeamSpec, one_hot


class Normalizers(nn.ModuleDict):
    """The normalizers of entries, by name.

    Target networks share this container, so they also get the normalizers that are added after they were copied.
    """

    shared_with_targets = True


class Input(nn.Module):
    """Reads features ``[*B, n, F]`` from a TensorDict; ``n`` is the agent axis, or 1 for one row per team.

    ``own_observation``, ``team_observation``, ``global_state`` and ``agent_state`` make the common ones.

    Args:
        parts: ``(key, mask key or None, dims)`` for each entry; the last ``dims`` dimensions are flattened into
            features. Entries of dead agents are set to zero, so nothing in them matters.
        n_agents: size of the agent axis, along which team features are repeated; 1 for one row per team.
        features: F, without the agent id, the latent and the index.
        agent_id: append each agent's one-hot index.
        latent_dim: append the team's latent ``[*B, latent_dim]`` of the root key ``latent``; where that is missing, as
            in execution, zeros, its mean.
        index: the key of an entry int64 ``[*B, n_agents]`` and its number of values; appended last, one-hot.
        normalize: a ``LayerNorm`` without parameters on the features (Yu et al. 2022, section 5, "feature
            normalization").
        decentralized: whether agent i's features depend on its own data alone.
        columns: int64 ``[n_agents, features]``: which column of the team's features stands at each place of each
            agent's row; ``None``: the rows are in the team's order.
        hidden: bool ``[n_agents, features]``: the places of each agent's row that are 0, whatever the entries say;
            ``None`` for none.
        entries: the shapes and dtypes of the entries, which losses check.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import Input
    >>> velocity = Input([(("agents", "velocity"), None, 0)], n_agents=3, features=2, agent_id=True)
    >>> velocity(TensorDict({"agents": {"velocity": torch.zeros(7, 3, 2)}}, [7])).shape
    torch.Size([7, 3, 5])
    """

    ids: Tensor | None
    columns: Tensor | None
    hidden: Tensor | None

    def __init__(
        self,
        parts: list[tuple[Key, Key | None, int]],
        n_agents: int,
        features: int,
        *,
        agent_id: bool = False,
        latent_dim: int = 0,
        index: tuple[Key, int] | None = None,
        normalize: bool = False,
        decentralized: bool = False,
        columns: Tensor | None = None,
        hidden: Tensor | None = None,
        entries: Sequence[Entry] = (),
    ):
        super().__init__()
        self.in_entries = (*entries, *([latent_entry(latent_dim)] if latent_dim else []))
        self.parts, self.n_agents, self.decentralized, self.index = parts, n_agents, decentralized, index
        self.latent_dim, self.uses_mean_latent = latent_dim, False
        self._width = features
        self.features = features + (n_agents if agent_id else 0) + latent_dim + (0 if index is None else index[1])
        self.norm = nn.LayerNorm(features, elementwise_affine=False) if normalize else None
        self.normalizers = Normalizers()
        self.register_buffer("ids", torch.eye(n_agents) if agent_id else None, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("hidden", hidden, persistent=False)

    @property
    def in_keys(self) -> list[Key]:
        keys = [key for part in self.parts for key in part[:2] if key is not None]
        keys += [LATENT] if self.latent_dim else []
        return keys if self.index is None else [*keys, self.index[0]]

    def reads(self, key: Key) -> bool:
        """Whether features come from the entry at ``key``."""
        return any(part[0] == key for part in self.parts)

    def normalizer(self, key: Key) -> nn.Module | None:
        """The module that normalizes the entry at ``key``; ``None`` if it is read as it is."""
        return dict(self.normalizers.items()).get(entry_name(key))

    def normalize_entry(self, key: Key, normalizer: nn.Module) -> None:
        """Read the entry at ``key`` through ``normalizer``; ``ObservationNorm.attach`` calls this."""
        self.normalizers[entry_name(key)] = normalizer

    @property
    def per_agent(self) -> bool:
        """Whether rows differ by more than the agent's id."""
        return any(dims == 0 for *_, dims in self.parts)

    def alive(self, tensordict: TensorDictBase) -> Tensor | None:
        """Which of the agents are alive, bool ``[*B, n]``; ``None`` if the entries have no mask."""
        key = next((mask for _, mask, dims in self.parts if dims == 0 and mask is not None), None)
        return None if key is None else entry(tensordict, key)

    def forward(self, tensordict: TensorDictBase) -> Tensor:
        parts = [part_columns(tensordict, *part, self.normalizer(part[0])) for part in self.parts]
        # The team's features are repeated in every agent's row.
        rows = max(part.shape[-2] for part in parts)
        x = torch.cat([part.expand(*part.shape[:-2], rows, part.shape[-1]) for part in parts], -1)
        if x.shape[-1] != self._width:
            raise wrong_sizes(tensordict, [key for key, *_ in self.parts], self.in_entries, self._width)
        if self.norm is not None:
            x = self.norm(x)
        if self.columns is not None:
            x = x.squeeze(-2).index_select(-1, self.columns.flatten()).unflatten(-1, self.columns.shape)
        if all(dims > 0 for *_, dims in self.parts):
            x = x.expand(*x.shape[:-2], self.n_agents, x.shape[-1])
        elif x.shape[-2] != self.n_agents:
            raise wrong_agents(self.parts[0][0], self.n_agents, x, tensordict.batch_dims)
        if self.hidden is not None:
            x = x.masked_fill(self.hidden, 0)
        if self.ids is not None:
            x = torch.cat([x, self.ids.to(x.dtype).expand(*x.shape[:-1], self.ids.shape[-1])], -1)
        if self.latent_dim:
            x = torch.cat([x, latent_columns(tensordict, x, self.latent_dim, use_mean=self.uses_mean_latent)], -1)
        if self.index is None:
            return x
        key, size = self.index
        one_hot_index = one_hot(entry(tensordict, key).reshape(x.shape[:-1]), size)
        return torch.cat([x, one_hot_index.to(x.dtype)], -1)

    def for_agent(self, agent: int, *, keep_axis: bool = False) -> Input:
        """The input of one agent: the same keys and its id.

        Entries are without the agent axis, ``[*B, F]``; with ``keep_axis`` they have one of size 1.
        """
        dims = 0 if keep_axis else 1
        single = Input([(key, mask, dims) for key, mask, _ in self.parts], 1, self.features, decentralized=True)
        single._width = self._width
        single.norm, single.normalizers, single.index = self.norm, self.normalizers, self.index
        single.latent_dim, single.uses_mean_latent = self.latent_dim, self.uses_mean_latent
        single.ids = None if self.ids is None else self.ids[agent : agent + 1]
        return single


def entry_name(key: Key) -> str:
    """A key as the name of a submodule."""
    return key if isinstance(key, str) else "/".join(key)


def own_observation(
    group: GroupSpec,
    *,
    agent_id: bool = False,
    last_action: bool = False,
    latent_dim: int = 0,
    sub_policies: int | None = None,
    normalize: bool = False,
) -> Input:
    """Each agent's own observation ``[*B, n_agents, F]``: a decentralized input.

    Args:
        group: the group's spec.
        agent_id: append each agent's one-hot index.
        last_action: append the agent's action of the step before, one-hot, as ``envs.transforms.LastAction`` writes it.
        latent_dim: append the team's latent, as ``TeamLatent`` draws it; zeros where there is none.
        sub_policies: append the index of the agent's sub-policy among this many, one-hot, as ``SubPolicies`` needs it.
        normalize: normalize the observation and the last action together.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import own_observation
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))
    >>> own_observation(group)(TensorDict({"agents": {"observation": torch.zeros(7, 3, 5)}}, [7])).shape
    torch.Size([7, 3, 5])
    """
    keys = group.keys
    mask = keys.mask if group.mask else None
    parts: list[tuple[Key, Key | None, int]] = [(keys.observation, mask, 0)]
    features = group.observation_dim
    if last_action:
        parts.append((keys.last_action, mask, 0))
        features += sum(group.action.sizes)
    index = None if sub_policies is None else (keys.sub_policy, sub_policies)
    entries = GroupEntries.of(group)
    return Input(
        parts,
        group.n_agents,
        features,
        agent_id=agent_id,
        latent_dim=latent_dim,
        index=index,
        normalize=normalize,
        decentralized=True,
        entries=[*entries.by_key().values(), *([] if sub_policies is None else [entries.sub_policy(sub_policies)])],
    )


def team_observation(
    team: TeamSpec,
    group: GroupSpec,
    *,
    repeat: bool = False,
    agent_id: bool = False,
    normalize: bool = False,
    own_first: bool = False,
) -> Input:
    """The observations of all agents of all groups, concatenated: ``[*B, 1, sum(n_agents * F)]``.

    Args:
        team: all groups.
        group: the group whose agents get a row each, with any of ``repeat``, ``agent_id`` and ``own_first``.
        repeat: the same row for each agent.
        agent_id: append each agent's one-hot index.
        normalize: normalize the features.
        own_first: each agent's row begins with its own observation; the others' follow in the team's order.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import team_observation
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))
    >>> inputs = team_observation(TeamSpec((group,)), group)
    >>> inputs(TensorDict({"agents": {"observation": torch.zeros(7, 3, 5)}}, [7])).shape
    torch.Size([7, 1, 15])
    """
    parts: list[tuple[Key, Key | None, int]] = [
        (other.keys.observation, other.keys.mask if other.mask else None, 2) for other in team
    ]
    n_agents = group.n_agents if repeat or agent_id or own_first else 1
    columns = own_first_columns(team, group, [[other.observation_dim for other in team]]) if own_first else None
    entries = [entry for other in team for entry in GroupEntries.of(other).by_key().values()]
    return Input(
        parts,
        n_agents,
        team.observation_dim,
        agent_id=agent_id,
        normalize=normalize,
        columns=columns,
        entries=entries,
    )


def global_state(
    team: TeamSpec, group: GroupSpec, *, repeat: bool = False, agent_id: bool = False, normalize: bool = False
) -> Input:
    """The root ``state`` ``[*B, S]`` as ``[*B, 1, S]``; the arguments are those of ``team_observation``.

    Raises:
        UserError: where the env offers no ``state``.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import global_state
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))
    >>> inputs = global_state(TeamSpec((group,), state_dim=6), group, repeat=True)
    >>> inputs(TensorDict({"state": torch.zeros(7, 6)}, [7])).shape
    torch.Size([7, 3, 6])
    """
    if team.state_dim is None:
        raise UserError(
            "global_state: this env writes no root key 'state'; use team_observation, or sees='team' of a critic"
        )
    n_agents = group.n_agents if repeat or agent_id else 1
    entries = [state_entry(STATE, team.state_dim), *GroupEntries.of(group).by_key().values()]
    return Input([(STATE, None, 1)], n_agents, team.state_dim, agent_id=agent_id, normalize=normalize, entries=entries)


def agent_state(group: GroupSpec, *, agent_id: bool = False, normalize: bool = False) -> Input:
    """The agent-specific global state ``(group, "state")`` ``[*B, n_agents, S]``.

    Raises:
        UserError: where the env offers none.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import agent_state
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)), state_dim=6)
    >>> agent_state(group)(TensorDict({"agents": {"state": torch.zeros(7, 3, 6)}}, [7])).shape
    torch.Size([7, 3, 6])
    """
    keys: GroupKeys = group.keys
    if group.state_dim is None:
        raise UserError(
            f"agent_state: this env writes no key {keys.state}; append envs.transforms.AgentState to it, or use "
            "team_observation, or sees='team' of a critic"
        )
    part = (keys.state, keys.mask if group.mask else None, 0)
    entries = GroupEntries.of(group).by_key().values()
    return Input([part], group.n_agents, group.state_dim, agent_id=agent_id, normalize=normalize, entries=[*entries])
