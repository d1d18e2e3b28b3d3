"""What critics need beside themselves: states in the environment, averages of parameters, entries in the buffer."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.envs import EnvBase
from torchrl.objectives.common import LossModule

from ctde_kit.envs.transforms import with_agent_states
from ctde_kit.errors import UserError
from ctde_kit.modules import CounterfactualCritic
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.protocols import TargetRule
from ctde_kit.recipes.configs.checks import building
from ctde_kit.recipes.configs.critics import CounterfactualCriticConfig, CriticConfig, ValueCriticConfig
from ctde_kit.recipes.configs.networks import NetworkConfig
from ctde_kit.specs import TeamSpec
from ctde_kit.training import ParameterAverage

logger = logging.getLogger("ctde_kit")


def critics_team(env: EnvBase, critic: CriticConfig) -> TeamSpec:
    """The spec of ``env``, with agent-specific states where ``critic`` has them built.

    Raises:
        UserError: where the env writes them itself.
    """
    team = TeamSpec.from_env(env)
    if not critic.builds_state:
        return team
    if any(group.state_dim is not None for group in team):
        raise UserError("critic.build_state=true: this task has agent-specific states of its own; leave it out")
    return with_agent_states(team)


def critics_of_actions(
    critic: CriticConfig, team: TeamSpec, learning: TeamSpec, device: str
) -> dict[str, TensorDictModuleBase]:
    """A critic of the actions of ``team`` for each group of ``learning``."""
    with building("critic.network", critic.network):
        return {group.name: critic.build_action_value(team, group).to(device) for group in learning}


def say_agents_are_alike(actor: NetworkConfig, critic: CriticConfig, team: TeamSpec) -> None:
    """Warn where agents act apart and share a critic of actions that sees one agent's data, whoever's they are."""
    blind = isinstance(critic, ValueCriticConfig) and critic.sees == "observation" and not critic.network.agent_id
    act_apart = actor.weight_sharing is not True or actor.agent_id
    groups = [group.name for group in team.groups if group.n_agents > 1]
    if groups and blind and act_apart and critic.network.weight_sharing is True:
        logger.warning(
            "%s: the agents' actors differ, and their one critic cannot tell agents apart; where an action does other "
            "things in other agents, use critic.network.agent_id=true or critic.network.share_params=false",
            " and ".join(groups),
        )


def counterfactual_critics(
    critic: CriticConfig, team: TeamSpec, learning: TeamSpec, device: str
) -> dict[str, CounterfactualCritic]:
    """A critic of every action of each agent, given those of ``team``, for each group of ``learning``."""
    assert isinstance(critic, CounterfactualCriticConfig)
    with building("critic.network", critic.network):
        return {group.name: critic.build_counterfactual(team, group).to(device) for group in learning}


def averaging(
    critic: CriticConfig, critics: Iterable[nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, TargetRule]:
    """What follows each update where ``critic`` asks for averages of its critics' parameters."""
    if critic.average_every is None:
        return {}
    layers = [layer for module in critics for layer in module.modules() if isinstance(layer, AgentLinear)]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    return {"average": ParameterAverage(parameters, optimizer, critic.average_every)}


def keys_read(losses: Iterable[LossModule], team: TeamSpec) -> list[NestedKey]:
    """The entries that a buffer must keep: those that losses read, and the masks of living agents."""
    masks: set[NestedKey] = {group.keys.mask for group in team}
    keys = masks | {key for loss in losses for key in loss.in_keys}
    return sorted(keys, key=str)
