"""Critics that see the agents of each group in a random order."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.errors import UserError
from ctde_kit.keys import NEXT, Key, next_key
from ctde_kit.modules.critics.action_value_critic import ActionValueCritic
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.agent_network import AgentNetwork
from ctde_kit.modules.networks.inputs import entry
from ctde_kit.specs import TeamSpec


class RandomOrderCritic(TensorDictModuleBase):
    """Shows ``critic`` each group's agents in a new random order in each sample, so that it cannot rely on the order.

    Reads what ``critic`` reads and, if present, ``(group, "order")`` int64 ``[*B, n_agents]`` of every group: which
    agent stands in each place. Observations, actions and masks are stacked in this order, and the outputs are put back
    in the agents' order: output k of one network with one head per agent, and row k of a network that reads an agent
    id, belong to the agent in place k. With one network per agent, row i is agent i's in any order.

    ``draw_order`` writes the order at the root and under ``next``. Each sample gets one: each transition of ``[B]``,
    and each sequence of ``[*B, T]``, because a recurrent critic remembers the places. The kit's losses call
    it once for all critics and their target networks, so that in one sample Q and target Q, observations, actions and
    next observations have the same order; other losses must call it themselves. Where no order was drawn, as when
    values are stored for advantages, the agents keep their own order: the stored values are the same however often they
    are computed.

    Args:
        team: all groups.
        critic: made by ``value_critic`` or ``action_value_critic``.

    Raises:
        UserError: for a recurrent critic of states.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import MultiAgentMLP, RandomOrderCritic, value_critic
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("navigation", num_envs=5)
    >>> team = TeamSpec.from_env(env)
    >>> critic = RandomOrderCritic(team, value_critic(team, team["agents"], MultiAgentMLP))
    >>> critic(critic.draw_order(env.reset()))["agents", "state_value"].shape
    torch.Size([5, 4, 1])
    """

    in_keys: list[Key]
    out_keys: list[Key]

    def __init__(self, team: TeamSpec, critic: AgentNetwork | ActionValueCritic):
        super().__init__()
        self.team, self.critic = team, critic
        network = critic if isinstance(critic, AgentNetwork) else critic.agent_network
        if network is critic and network.recurrent:
            raise UserError(
                "RandomOrderCritic: the hidden state of a recurrent critic of states was computed in a fixed order; "
                "give a critic with a feed-forward network, or use it without a random order"
            )
        self.rows_are_places = network.inputs.n_agents == 1 or network.inputs.ids is not None
        self.order_keys: list[Key] = [group.keys.order for group in team]
        self.in_keys = [*critic.in_keys, *self.order_keys]
        self.out_keys = list(critic.out_keys)
        self.hidden_key: Key | None = critic.hidden_key

    @property
    def hidden_shape(self) -> tuple[int, int]:
        """The shape ``(n, H)`` of one hidden state; only a recurrent critic has one."""
        return self.critic.hidden_shape

    @property
    def in_entries(self) -> list[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        return [*self.critic.in_entries, *(GroupEntries.of(group).order for group in self.team)]

    @property
    def swaps_own_action(self) -> bool:
        """Whether ``own_action_values`` can be computed: not with one network per agent."""
        swaps = isinstance(self.critic, ActionValueCritic) and self.critic.swaps_own_action
        return self.rows_are_places and swaps

    def draw_order(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the orders that are missing, at the root and under ``next``."""
        batch = tensordict.shape
        drawn = batch if len(batch) < 2 else (*batch[:-1], 1)
        for group in self.team:
            if tensordict.get(group.keys.order, None) is not None:
                continue
            device = entry(tensordict, group.keys.observation).device
            order = torch.rand(*drawn, group.n_agents, device=device).argsort(-1).expand(*batch, group.n_agents)
            tensordict.set(group.keys.order, order)
            if tensordict.get(NEXT, None) is not None:
                tensordict.set(next_key(group.keys.order), order)
        return tensordict

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        output = self.critic(self._ordered(tensordict))
        for key in self.out_keys:
            tensordict.set(key, self._to_agents(tensordict, output.get(key), key))
        return tensordict

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """Each agent's value ``[*K, *B, n_agents, 1]`` if it alone takes its action in ``action``.

        ``action`` is ``[*K, *B, n_agents, D]``; the other agents' actions are those in ``tensordict`` ``[*B]``.
        """
        critic = self.critic
        assert isinstance(critic, ActionValueCritic)
        order = tensordict.get(critic.group.keys.order, None)
        if order is None:
            return critic.own_action_values(self._ordered(tensordict), action)
        order = order.expand(action.shape[:-1])
        values = critic.own_action_values(self._ordered(tensordict), _in_order(action, order))
        return _in_order(values, order.argsort(-1))

    def _ordered(self, tensordict: TensorDictBase) -> TensorDictBase:
        """What ``critic`` reads, in the drawn order; hidden states belong to places, so they are not moved."""
        ordered = tensordict.select(*self.critic.in_keys, strict=False)
        for group in self.team:
            order = tensordict.get(group.keys.order, None)
            if order is not None:
                for key in self.critic.in_keys:
                    if isinstance(key, tuple) and key[0] == group.name and key in ordered.keys(True):
                        ordered.set(key, _in_order(entry(tensordict, key), order))
        return ordered

    def _to_agents(self, tensordict: TensorDictBase, value: Tensor, key: Key) -> Tensor:
        """An output ``[*B, n_agents, 1]`` in the agents' own order; hidden states belong to places."""
        order_keys = {group.name: group.keys.order for group in self.team}
        order_key = order_keys.get(key[0]) if isinstance(key, tuple) and self.rows_are_places else None
        order = None if order_key is None else tensordict.get(order_key, None)
        return value if order is None else _in_order(value, order.argsort(-1))


def _in_order(value: Tensor, order: Tensor) -> Tensor:
    """``value`` ``[*B, n_agents, ...]`` with the agent ``order[..., k]`` in place k."""
    agents = order.ndim - 1
    return torch.take_along_dim(value, order.reshape(*order.shape, *[1] * (value.ndim - order.ndim)), agents)
