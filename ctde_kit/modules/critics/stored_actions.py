"""Critics of actions: the action vectors that they read, from stored actions where a batch has no vectors."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from ctde_kit.entry_tables import Entry
from ctde_kit.keys import Key
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.agent_network import AgentNetwork
from ctde_kit.modules.networks.inputs import entry
from ctde_kit.specs import GroupSpec, TeamSpec


class CriticOfActions(TensorDictModuleBase):
    """A critic whose network reads action vectors; the base of critics of joint actions.

    Reads what ``agent_network`` reads, including ``(group, "action_vector")`` ``[*B, n_agents, D]``, or where there are
    none, ``(group, "action")``; writes what it writes.

    Args:
        group: the group that it values.
        agent_network: writes the values.
        team: all groups whose actions it sees; ``None``: ``group`` alone.
    """

    in_keys: list[Key]
    out_keys: list[Key]

    def __init__(self, group: GroupSpec, agent_network: AgentNetwork, team: TeamSpec | None):
        super().__init__()
        self.group, self.agent_network = group, agent_network
        self.acting = groups_that_act(team.groups if team is not None else (group,), agent_network.in_keys)
        self.in_keys = [*agent_network.in_keys, *(other.keys.action for other in self.acting)]
        self.out_keys = agent_network.out_keys

    @property
    def in_entries(self) -> list[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        return self.agent_network.in_entries

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        inputs = with_action_vectors(self.acting, tensordict)
        output = self.agent_network(inputs)
        return output if inputs is tensordict else tensordict.update(output.select(*self.out_keys))


def groups_that_act(groups: Sequence[GroupSpec], in_keys: Sequence[Key]) -> list[GroupSpec]:
    """The groups whose ``action_vector`` is among ``in_keys``."""
    return [group for group in groups if group.keys.action_vector in in_keys]


def with_action_vectors(groups: Sequence[GroupSpec], tensordict: TensorDictBase) -> TensorDictBase:
    """``tensordict`` or, if a group has no ``action_vector`` in it, a copy with the vectors of that group's ``action``.

    The kit's losses write vectors, which can carry a gradient where actions are discrete; TorchRL's ``DDPGLoss`` and
    ``SACLoss`` write only actions. Nothing is written into ``tensordict``: a stored vector would stay when its action
    is replaced.
    """
    missing = [group for group in groups if tensordict.get(group.keys.action_vector, None) is None]
    if not missing:
        return tensordict
    data = tensordict.copy()
    for group in missing:
        data.set(group.keys.action_vector, group.action.vector(entry(tensordict, group.keys.action)))
    return data
