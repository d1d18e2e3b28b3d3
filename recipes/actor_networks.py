"""What an actor sees and its network, within its group or across groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ctde_kit.recipes.channels import BiCNetNetwork, CommNetNetwork, TarMACNetwork, encoder_options
from ctde_kit.recipes.networks import NetworkConfig
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import FrozenActor, Input, TeamChannel, own_observation
from ctde_kit.modules.communication.team_channel import GroupNetwork
from ctde_kit.modules.networks.team_input import TeamInput
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
        outputs: how many a group's agent has.
        last_action: agents see their last action.
    """
    sees = {"agent_id": network.agent_id, "last_action": last_action, "normalize": network.normalize}
    if not isinstance(network, (BiCNetNetwork, CommNetNetwork, TarMACNetwork)) or not network.across_groups:
        inputs = own_observation(group, **sees)
        return inputs, network.build(inputs.features, outputs(group), group.n_agents)
    seen = {one.name: own_observation(one, **sees) for one in team}
    sizes = {one.name: outputs(one) for one in team}
    channel = TeamChannel(seen, sizes, network.build_channel(), **encoder_options(network))
    return TeamInput(seen), channel.for_group(group.name)


def channels_across_groups(actor: nn.Module) -> list[GroupNetwork]:
    """The networks in ``actor`` whose channel crosses groups."""
    return [module for module in actor.modules() if isinstance(module, GroupNetwork)]


def share_channel(actors: Mapping[str, Any]) -> None:
    """Make the channels of all groups' actors one.

    Raises:
        UserError: where some groups have such a channel and others have none, or have a frozen one.
    """
    networks = {
        name: [] if isinstance(actor, FrozenActor) else channels_across_groups(actor) for name, actor in actors.items()
    }
    found = [network for group in networks.values() for network in group]
    silent = [name for name, group in networks.items() if not group]
    if found and silent:
        raise UserError(
            f"actor.across_groups=true: group {silent[0]!r} does not learn, so it has nothing to say; leave "
            f"opponents.{silent[0]} or across_groups out"
        )
    for network in found[1:]:
        network.team = found[0].team
