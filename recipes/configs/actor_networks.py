"""What an actor sees and its network, within its group or across groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ctde_kit.recipes.configs.channel_networks import ChannelNetwork
from ctde_kit.recipes.configs.networks import NetworkConfig

import ctde_kit as ck
from ctde_kit.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from ctde_kit.modules import GroupNetwork, Input, TeamInput
    from ctde_kit.specs import GroupSpec, TeamSpec


def actor_network(
    team: TeamSpec,
    group: GroupSpec,
    network: NetworkConfig,
    outputs: Callable[[GroupSpec], int],
    *,
    last_action: bool = False,
) -> tuple[Input | TeamInput, nn.Module]:
    """The input and the network of one group's actor.

    Across groups the network holds a channel of the whole team, which ``share_channel`` makes one for all groups.

    Args:
        team: all groups.
        group: whose actor it is.
        network: its configuration.
        outputs: how many outputs an agent of a group has.
        last_action: agents see their last action.
    """
    options = {"agent_id": network.agent_id, "last_action": last_action, "normalize": network.normalize}
    if not isinstance(network, ChannelNetwork) or not network.across_groups:
        inputs = ck.own_observation(group, **options)
        return inputs, network.build(inputs.features, outputs(group), group.n_agents)
    inputs_of = {one.name: ck.own_observation(one, **options) for one in team}
    sizes = {one.name: outputs(one) for one in team}
    channel = ck.modules.TeamChannel(inputs_of, sizes, network.build_channel(), **network.encoder_options())
    return ck.modules.TeamInput(inputs_of), channel.for_group(group.name)


def channels_across_groups(actor: nn.Module) -> list[GroupNetwork]:
    """The networks in ``actor`` whose channel crosses groups."""
    return [module for module in actor.modules() if isinstance(module, ck.modules.GroupNetwork)]


def share_channel(actors: Mapping[str, Any]) -> None:
    """Make the channels of all groups' actors one.

    Raises:
        UserError: where some groups have such a channel and others have none, or have a frozen one.
    """
    networks = {
        name: [] if isinstance(actor, ck.modules.FrozenActor) else channels_across_groups(actor)
        for name, actor in actors.items()
    }
    crossing = [network for group in networks.values() for network in group]
    silent = [name for name, group in networks.items() if not group]
    if crossing and silent:
        raise UserError(
            f"actor.across_groups=true: group {silent[0]!r} does not learn, so it has nothing to say; leave "
            f"opponents.{silent[0]} or across_groups out"
        )
    for network in crossing[1:]:
        network.team = crossing[0].team
