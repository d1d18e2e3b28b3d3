"""Critics of joint actions, in every layout: whose data and actions they see, and how many values they give."""

from __future__ import annotations

from typing import get_args

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.modules.argument_checks import built_network, check_team_and_group
from ctde_kit.modules.critics.joint_action_input import joint_action_input
from ctde_kit.modules.critics.stored_actions import CriticOfActions
from ctde_kit.modules.critics.value_critic import Heads, Sees, ValuePerAgent, check_own_first
from ctde_kit.modules.networks.agent_network import AgentNetwork, NetworkFactory
from ctde_kit.modules.networks.sizes import HasFirstLayer, OutputSize
from ctde_kit.specs import GroupSpec, TeamSpec


class ActionValueCritic(CriticOfActions):
    """A critic of joint actions: it writes ``(group, "state_action_value")`` ``[*B, n_agents, 1]``.

    ``action_value_critic`` makes the common ones. Reads what ``agent_network`` reads, including actions as vectors:
    ``(group, "action_vector")`` ``[*B, n_agents, D]``, or where there are none, ``(group, "action")``.

    Args:
        group: the group whose returns it predicts.
        agent_network: writes the value.
        own_column: the column of the features at which agent 0's action begins; the actions of the group's other agents
            follow. ``None`` if agent i's features hold agent i's action alone.
        own_first: each agent's own action stands at ``own_column``.
        team: all groups whose actions it sees; ``None``: ``group`` alone.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import ActionValueCritic, AgentNetwork, Input, MultiAgentMLP
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))
    >>> parts = [(group.keys.observation, None, 0), (group.keys.action_vector, None, 0)]
    >>> inputs = Input(parts, n_agents=3, features=5 + 4, decentralized=True)
    >>> network = AgentNetwork(inputs, MultiAgentMLP(5 + 4, 1, n_agents=3), [group.keys.state_action_value])
    >>> critic = ActionValueCritic(group, network, own_column=None)
    >>> data = {"observation": torch.zeros(2, 3, 5), "action_vector": torch.zeros(2, 3, 4)}
    >>> critic(TensorDict({"agents": data}, [2]))["agents", "state_action_value"].shape
    torch.Size([2, 3, 1])
    """

    def __init__(
        self,
        group: GroupSpec,
        agent_network: AgentNetwork,
        own_column: int | None,
        *,
        own_first: bool = False,
        team: TeamSpec | None = None,
    ):
        super().__init__(group, agent_network, team)
        self.own_column, self.own_first = own_column, own_first
        self.hidden_key = agent_network.hidden_key

    @property
    def hidden_shape(self) -> tuple[int, int]:
        """The shape ``(n, H)`` of one hidden state; only a recurrent critic has one."""
        return self.agent_network.hidden_shape

    @property
    def decentralized(self) -> bool:
        """Whether agent i's value depends on agent i's own data and action alone."""
        return self.agent_network.decentralized

    def compute_only(self, agents: slice | None) -> None:
        """From now on compute these agents and give 0 for the others; ``None``: all."""
        self.agent_network.compute_only(agents)

    @property
    def swaps_own_action(self) -> bool:
        """Whether ``own_action_values`` can be computed.

        With an ``own_column`` the network must have ``first`` and ``after_first``; without one, the critic must be
        ``decentralized``.
        """
        if self.own_column is None:
            return self.agent_network.decentralized
        return isinstance(self.agent_network.network, HasFirstLayer)

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """Each agent's value ``[*K, *B, n_agents, 1]`` if it alone takes its action in ``action``.

        The other agents' actions are those in ``tensordict`` ``[*B]``. The first layer reads the joint action once;
        each agent's own action is swapped in by its difference, so only the later layers run once per agent and per
        action of K. A recurrent critic takes one step from the hidden states in ``tensordict``.
        """
        key = self.group.keys.action_vector
        if self.own_column is None:
            changed = tensordict.expand(action.shape[:-2]).copy().set(key, action)
            with set_recurrent_mode(False):
                return self.agent_network(changed).get(self.group.keys.state_action_value)
        network = self.agent_network.network
        assert isinstance(network, HasFirstLayer)
        first = network.first(self.agent_network.inputs(tensordict))
        rows = network.first.swapped(first, action - tensordict.get(key), self.own_column, same_column=self.own_first)
        carried: list[Tensor] = []
        if self.hidden_key is not None:
            hidden = tensordict.get(self.hidden_key)
            hidden = hidden.expand(*rows.shape[:-2], *hidden.shape[-2:])
            carried = [hidden, torch.zeros(*rows.shape[:-2], 1, dtype=torch.bool, device=hidden.device)]
        outputs = network.after_first(rows, *carried)
        values = outputs if isinstance(outputs, Tensor) else outputs[0]
        # With one head per agent, row i has agent i's action, and head i is agent i's.
        return values if values.shape[-1] == 1 else values.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)


def action_value_critic(
    team: TeamSpec,
    group: GroupSpec,
    make_network: NetworkFactory,
    *,
    sees: Sees = "team",
    heads: Heads = "agent",
    agent_id: bool = False,
    own_first: bool = False,
) -> ActionValueCritic:
    """A critic of joint actions, in one of the common layouts.

    Centralized critics see the actions of all agents of all groups (Lowe et al. 2017, section 4.1: in ``simple_tag`` a
    predator's critic sees the prey's action). With ``observation`` each agent's critic sees its own data and action
    alone (IDDPG, and the utilities that FACMAC mixes). A recurrent critic keeps its hidden state under the root key
    ``{group}_critic_hidden``.

    Args:
        team: all groups; a centralized critic sees them all.
        group: the group whose returns it predicts.
        make_network: ``(in_features, out_features, n_agents) -> network``, such as ``MultiAgentMLP``.
        sees: each agent's own ``observation``, all observations of the ``team``, the root ``state``, or the
            agent-specific ``agent_state``.
        heads: for ``team`` and ``state``: ``one`` value for all agents, one output per ``agent``, or one ``network``
            per agent (with separate weights, or shared by clusters or all agents, as ``make_network`` shares them).
        agent_id: append the agent's index, with one forward pass per agent, instead of heads.
        own_first: as in ``value_critic``; each agent's own action is also the first of the actions.

    Raises:
        UserError: as ``value_critic``.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import MultiAgentMLP, action_value_critic
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),))
    >>> critic = action_value_critic(team, team["agents"], MultiAgentMLP)
    >>> data = {"observation": torch.zeros(2, 3, 5), "action_vector": torch.zeros(2, 3, 4)}
    >>> critic(TensorDict({"agents": data}, [2]))["agents", "state_action_value"].shape
    torch.Size([2, 3, 1])
    """
    check_team_and_group("action_value_critic", team, group)
    for name, value, words in (("sees", sees, get_args(Sees)), ("heads", heads, get_args(Heads))):
        if value not in words:
            raise UserError(f"action_value_critic: {name}={value!r}, expected one of {', '.join(words)}")
    check_own_first(own_first, sees, heads, agent_id)
    inputs, own_column = joint_action_input(
        team,
        group,
        sees,
        per_agent=heads == "network" or agent_id,
        agent_id=agent_id,
        own_first=own_first,
    )
    n_rows = inputs.n_agents
    outputs = group.n_agents if n_rows == 1 and heads == "agent" else 1
    network = AgentNetwork(
        inputs,
        built_network("action_value_critic", make_network, inputs.features, outputs, n_rows),
        [group.keys.state_action_value],
        hidden_key=group.keys.team_hidden("critic"),
        split=ValuePerAgent(group.n_agents),
        output_size=OutputSize(n_rows, outputs, "one value per head"),
    )
    return ActionValueCritic(group, network, own_column, own_first=own_first, team=team)
