"""A critic that sees the agents of each group in a random order."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import NEXT, Key, next_key
from ctde_kit.modules.critics.action_value_critic import ActionValueCritic
from ctde_kit.modules.networks.agent_network import AgentNetwork
from ctde_kit.modules.networks.inputs import entry
from ctde_kit.specs import TeamSpec


class RandomOrderCritic(TensorDictModuleBase):
    """Shows ``critic`` the agents of each group in another order in each sample, so that none can rely on its place.

    Reads what ``critic`` reads and, where it is there, ``(group, "order")`` int64 ``[*B, n_agents]`` of every group:
    which agent stands in each place. Observations, actions and who is alive are stacked in this order; what comes out
    goes back to the agents: output k, of one network with a head an agent, and row k, told apart by the agent id, are
    of the agent in place k. With a network an agent the rows are the agents' own, whatever they see.

    ``draw_order`` writes the order at the root and under ``next``, one a sample: for transitions ``[B]`` one each, for
    sequences ``[*B, T]`` one a sequence, since a recurrent critic remembers who stood where. ``MAPPOLoss`` and
    ``MADDPGLoss`` call it once for all critics and their targets, so that of one sample Q and target Q see one order,
    and observations, actions and next observations do. Where nobody drew an order, as when values are stored for
    advantages, the agents stand in their own: what is stored is then the same however often it is computed. Another
    loss must call ``draw_order`` itself.

    Args:
        team: all groups.
        critic: what ``value_critic`` or ``action_value_critic`` gives.

    Raises:
        UserError: for a recurrent critic of states.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import MultiAgentMLP, value_critic
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
                "a random order: a recurrent critic of states goes on from what it saw in a fixed one; use a "
                "feed-forward network (network@critic.network=mlp), or a fixed order (critic.ordering=fixed)"
            )
        self.rows_are_places = network.inputs.n_agents == 1 or network.inputs.ids is not None
        self.order_keys: list[Key] = [group.keys.order for group in team]
        self.in_keys = [*critic.in_keys, *self.order_keys]
        self.out_keys = list(critic.out_keys)
        self.hidden_key: Key | None = critic.hidden_key

    @property
    def hidden_shape(self) -> tuple[int, int]:
        """The shape ``(n, H)`` of one hidden state; of a recurrent critic alone."""
        return self.critic.hidden_shape

    @property
    def swaps_own_action(self) -> bool:
        """Whether ``own_action_values`` can be computed: rows of their own networks see each agent elsewhere."""
        swaps = isinstance(self.critic, ActionValueCritic) and self.critic.swaps_own_action
        return self.rows_are_places and swaps

    def draw_order(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the orders that are not there yet, at the root and under ``next``."""
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

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        found = self.critic(self._shown(tensordict))
        for key in self.out_keys:
            value = found.get(key)
            tensordict.set(key, self._to_agents(tensordict, value, key))
        return tensordict

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """The value ``[*B, n_agents, 1]`` for each agent where it alone takes another action, as the critic has it."""
        group = self.critic.group
        order = tensordict.get(group.keys.order, None)
        shown = action if order is None else _arranged(action, order)
        values = self.critic.own_action_values(self._shown(tensordict), shown)
        return self._to_agents(tensordict, values, group.keys.state_action_value)

    def _shown(self, tensordict: TensorDictBase) -> TensorDictBase:
        """What ``critic`` reads, in order; the hidden state of a row stays where it is, as an order does in time."""
        shown = tensordict.select(*self.critic.in_keys, strict=False)
        for group in self.team:
            order = tensordict.get(group.keys.order, None)
            if order is not None:
                for key in self.critic.in_keys:
                    if isinstance(key, tuple) and key[0] == group.name:
                        shown.set(key, _arranged(entry(tensordict, key), order))
        return shown

    def _to_agents(self, tensordict: TensorDictBase, value: Tensor, key: Key) -> Tensor:
        """What is an agent's, ``[*B, n_agents, 1]``; a hidden state is a row's."""
        orders = {group.name: group.keys.order for group in self.team}
        owner = orders.get(key[0]) if isinstance(key, tuple) and self.rows_are_places else None
        order = None if owner is None else tensordict.get(owner, None)
        return value if order is None else _arranged(value, order.argsort(-1))


def _arranged(value: Tensor, order: Tensor) -> Tensor:
    """``value`` ``[*B, n_agents, ...]`` with the agent ``order[..., k]`` in place k."""
    agents = order.ndim - 1
    return torch.take_along_dim(value, order.reshape(*order.shape, *[1] * (value.ndim - order.ndim)), agents)
