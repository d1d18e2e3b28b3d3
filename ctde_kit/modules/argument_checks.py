"""Checks of the arguments of actors and critics, with errors that name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensordict import TensorDictBase
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.keys import Key
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.modules.networks.team_input import TeamInput
from ctde_kit.specs import GroupSpec, TeamSpec


def check_actor_arguments(owner: str, group: object, inputs: object, network: object, size: str) -> None:
    """Raise ``UserError`` unless ``group``, ``inputs`` and ``network`` are of the types that an actor needs.

    Args:
        owner: the actor's class.
        group, inputs, network: its arguments.
        size: the attribute of ``group.action`` that says how many outputs the network needs.
    """
    if not isinstance(group, GroupSpec):
        raise UserError(
            f"{owner}: group is {_what(group)}: expected one group's spec, such as TeamSpec.from_env(env)['agents']"
        )
    if not isinstance(inputs, (Input, TeamInput)):
        raise UserError(f"{owner}: inputs is {_what(inputs)}: expected what each agent sees, own_observation(group)")
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{owner}: network is {_what(network)}: expected a built network, such as "
            f"MultiAgentMLP(inputs.features, group.action.{size}, group.n_agents)"
        )


def check_team_and_group(owner: str, team: object, group: object) -> None:
    """Raise ``UserError`` unless ``team`` and ``group`` are a ``TeamSpec`` and the spec of one of its groups."""
    if not isinstance(team, TeamSpec) or not isinstance(group, GroupSpec):
        raise UserError(
            f"{owner}: team is {_what(team)}, group is {_what(group)}: expected TeamSpec.from_env(env) and "
            "the spec of one of its groups, such as team['agents'], in this order"
        )


def built_network(
    owner: str, make_network: Callable[[int, int, int], nn.Module], in_features: int, out_features: int, n_agents: int
) -> nn.Module:
    """The network of these sizes that ``make_network`` returns.

    Raises:
        UserError: if ``make_network`` is a network instead of a function, or takes other arguments.
    """
    advice = (
        "give a function that makes the network, (in_features, out_features, n_agents) -> nn.Module, such as "
        "MultiAgentMLP or functools.partial(MultiAgentMLP, num_cells=(64,))"
    )
    if isinstance(make_network, nn.Module) or not callable(make_network):
        raise UserError(f"{owner}: make_network is {_what(make_network)}: {advice}")
    try:
        network = make_network(in_features, out_features, n_agents)
    except TypeError as reason:
        raise UserError(
            f"{owner}: make_network, {getattr(make_network, '__name__', make_network)}, does not take "
            f"({in_features}, {out_features}, {n_agents}), {reason}; {advice}"
        ) from reason
    if not isinstance(network, nn.Module):
        raise UserError(f"{owner}: make_network gave {_what(network)}: {advice}")
    return network


def check_one_agent(tensordict: TensorDictBase, keys: Sequence[Key]) -> None:
    """Raise ``UserError`` if the policy of one agent, which reads ``[*B, F]``, is given a whole group's data."""
    value = tensordict.get(keys[0], None)
    if value is not None and value.ndim != tensordict.ndim + 1:
        raise UserError(
            f"for_agent: key {keys[0]}: expected one agent's {[*tensordict.shape, 'F']}, found "
            f"{list(value.shape)}; give the entries of that agent alone, such as value[..., agent, :]"
        )


def _what(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
