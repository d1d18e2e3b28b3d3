"""What an actor sees and its network, within its group or across groups."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.recipes.configs.channel_networks import ChannelNetworkConfig
from ctde_kit.recipes.configs.networks import NetworkConfig

if TYPE_CHECKING:
    from torch import nn

    from ctde_kit.modules import Input
    from ctde_kit.modules.networks.team_input import TeamInput
    from ctde_kit.specs import GroupSpec, TeamSpec


def actor_network(
    team: TeamSpec,
    group: GroupSpec,
    network: NetworkConfig,
    outputs: Callable[[GroupSpec], int],
    *,
    last_action: bool = False,
    latent_dim: int = 0,
) -> tuple[Input | TeamInput, nn.Module]:
    """The input and the network of one group's actor.

    Where agents talk across groups, each group's network holds a channel of the whole team; ``share_channel`` then
    gives all of them the same one.

    Args:
        team: all groups.
        group: whose actor it is.
        network: its configuration.
        outputs: how many outputs an agent of a group has.
        last_action: agents see their last action.
        latent_dim: size of the latent that the team shares while it trains; 0 for none.
    """
    inputs_of_group = partial(
        ck.own_observation,
        agent_id=network.agent_id,
        last_action=last_action,
        normalize=network.normalize,
        latent_dim=latent_dim,
    )
    if not isinstance(network, ChannelNetworkConfig) or not network.across_groups:
        inputs = inputs_of_group(group)
        return inputs, network.build(inputs.features, outputs(group), group.n_agents)
    from ctde_kit.modules.networks.team_input import TeamInput

    inputs_of = {one.name: inputs_of_group(one) for one in team}
    sizes = {one.name: outputs(one) for one in team}
    channel = ck.modules.TeamChannel(inputs_of, sizes, network.build_channel(), **network.encoder_options())
    return TeamInput(inputs_of), channel.for_group(group.name)
