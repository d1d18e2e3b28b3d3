"""Channels between agents of all groups: one network that every group's actor holds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import FrozenActor
from ctde_kit.modules.communication.team_channel import GroupNetwork


def channels_across_groups(actor: object) -> list[GroupNetwork]:
    """The networks in ``actor`` whose channel crosses groups; none in a policy that is no module."""
    modules = actor.modules() if isinstance(actor, nn.Module) else ()
    return [module for module in modules if isinstance(module, GroupNetwork)]


def share_channel(actors: Mapping[str, object]) -> None:
    """Make the channels of all groups' actors one.

    Raises:
        UserError: where some groups have such a channel and others have none, or have a frozen one.
    """
    networks = {
        name: [] if isinstance(actor, FrozenActor) else channels_across_groups(actor) for name, actor in actors.items()
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
