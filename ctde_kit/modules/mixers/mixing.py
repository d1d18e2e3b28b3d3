"""What mixers share: how they read the values and actions of all groups and a state, and their hypernetworks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from ctde_kit.entry_tables import Entry
from ctde_kit.errors import UserError
from ctde_kit.keys import CHOSEN_ACTION_VALUE, Key
from ctde_kit.modules.networks.inputs import Input, global_state, team_observation
from ctde_kit.specs import GroupSpec, TeamSpec, one_hot

MixerState = Literal["auto", "state", "team"]


def mixer_state(team: TeamSpec, sees: MixerState = "auto", *, normalize: bool = False) -> Input:
    """The state that a mixer is conditioned on, ``[*B, 1, S]``.

    Args:
        team: all groups.
        sees: the root ``state``; the observations of the ``team``, concatenated, with zeros for dead agents; or
            ``auto``: the state if the env has one, otherwise the observations.
        normalize: normalize the features.

    Raises:
        UserError: for ``state`` where the env offers none, and for an unknown ``sees``.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import mixer_state
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),))
    >>> mixer_state(team)(TensorDict({"agents": {"observation": torch.zeros(2, 3, 5)}}, [2])).shape
    torch.Size([2, 1, 15])
    """
    if sees not in get_args(MixerState):
        raise UserError(f"mixer_state: sees={sees!r}: expected one of {', '.join(get_args(MixerState))}")
    if sees == "state" and team.state_dim is None:
        raise UserError("mixer_state: sees='state': this env writes no root key 'state'; use sees='team'")
    if sees == "state" or (sees == "auto" and team.state_dim is not None):
        return global_state(team, team.groups[0], normalize=normalize)
    return team_observation(team, team.groups[0], normalize=normalize)


def value_keys(team: TeamSpec, names: Sequence[str]) -> list[Key]:
    """The keys of the entries ``names`` of every group, and of its mask of living agents if it has one."""
    keys: list[Key] = [group.keys(name) for group in team for name in names]
    return [*keys, *(group.keys.mask for group in team if group.mask)]


class StateMixer(TensorDictModule):
    """The base of mixers that see a state: what they read, and the root ``chosen_action_value`` that they write.

    Args:
        team: all groups that are mixed.
        state: what it sees beside the entries of groups; ``None``: ``mixer_state(team)``.
        names: the entries of every group that it reads.
    """

    in_keys: list[Key]
    out_keys: list[Key]

    def __init__(self, team: TeamSpec, state: Input | None, names: Sequence[str] = (CHOSEN_ACTION_VALUE,)):
        # TorchRL's QMixerLoss takes a TensorDictModule as it is, and wraps any other module anew.
        super().__init__(nn.Identity(), in_keys=[CHOSEN_ACTION_VALUE], out_keys=[CHOSEN_ACTION_VALUE])
        self.team, self.state = team, state or mixer_state(team)
        self.n_agents = sum(group.n_agents for group in team)
        self.in_keys = list(dict.fromkeys([*value_keys(team, names), *self.state.in_keys]))
        self.out_keys = [CHOSEN_ACTION_VALUE]

    @property
    def in_entries(self) -> Sequence[Entry]:
        """The shapes and dtypes of the entries of its state."""
        return self.state.in_entries


def team_values(tensordict: TensorDictBase, team: TeamSpec, name: str) -> Tensor:
    """The entry ``name`` ``[*B, n_agents, 1]`` of every group side by side, ``[*B, N]``; zero for dead agents.

    Raises:
        UserError: for an entry that is missing or has another agent axis.
    """
    parts = []
    for group in team:
        value = tensordict.get(group.keys(name), None)
        expected = (*tensordict.batch_size, group.n_agents, 1)
        if value is None or value.shape != expected:
            actual = "nothing" if value is None else list(value.shape)
            advice = "; QMixLoss writes it, TorchRL's QMixerLoss does not: use QMixer or VDNMixer there"
            advice = advice if name == "max_action_value" and value is None else ""
            raise UserError(f"mixer: key {group.keys(name)}: expected {list(expected)}, found {actual}{advice}")
        value = value.squeeze(-1)
        parts.append(value.masked_fill(~tensordict.get(group.keys.mask), 0) if group.mask else value)
    return torch.cat(parts, -1)


def team_alive(tensordict: TensorDictBase, team: TeamSpec) -> Tensor:
    """Which of all agents are alive, bool ``[*B, N]``."""
    parts = []
    for group in team:
        value = tensordict.get(group.keys.chosen_action_value).squeeze(-1)
        parts.append(tensordict.get(group.keys.mask) if group.mask else torch.ones_like(value, dtype=torch.bool))
    return torch.cat(parts, -1)


def team_actions(tensordict: TensorDictBase, team: TeamSpec) -> Tensor:
    """The actions of all agents, one-hot and flat, ``[*B, sum(n_agents * A)]``; zeros for dead agents."""
    parts = []
    for group in team:
        action = tensordict.get(group.keys.action)
        if group.action.kind == "one_hot":
            choice = action.float()
        else:
            index = action.masked_fill(~tensordict.get(group.keys.mask), 0) if group.mask else action
            choice = one_hot(index, group.action.sizes[0]).float()
        if group.mask:
            choice = choice.masked_fill(~tensordict.get(group.keys.mask).unsqueeze(-1), 0)
        parts.append(choice.flatten(-2))
    return torch.cat(parts, -1)


def check_actions(group: GroupSpec) -> None:
    """Raise ``UserError`` unless an agent of the group picks one of N actions."""
    if group.action.kind not in ("categorical", "one_hot"):
        raise UserError(
            f"mixer: group {group.name!r} has actions of kind {group.action.kind!r}: expected one choice per agent, "
            "categorical or one_hot; use another env"
        )


def hypernetwork(in_features: int, out_features: int, num_cells: Sequence[int]) -> nn.Sequential:
    """A ReLU perceptron with a hidden layer for each width in ``num_cells``, and a linear output layer."""
    layers: list[nn.Module] = []
    for width in num_cells:
        layers += [nn.Linear(in_features, width), nn.ReLU()]
        in_features = width
    return nn.Sequential(*layers, nn.Linear(in_features, out_features))
