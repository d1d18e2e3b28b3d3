"""What follows by the target networks, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.keys import DONE, IS_INIT, NEXT, next_key
from ctde_kit.objectives.inference import PolicyInference
from ctde_kit.objectives.joint_actions import values_of_rows, zero_dead
from ctde_kit.objectives.minimax import MinimaxAdversary
from ctde_kit.objectives.q_values import at_next
from ctde_kit.objectives.unroll import hidden_key, next_inputs, next_outputs, single_steps, unroll


@torch.no_grad()
def with_next_actions(
    actors: Mapping[str, Any],
    delayed: nn.ModuleDict,
    data: TensorDictBase,
    steps: TensorDictBase,
    burn_in: int,
    from_stored: bool,
) -> TensorDictBase:
    """``steps`` with what the target actors and opponents do next, as vectors ``[*B, T, n_agents, D]`` under ``next``.

    Args:
        actors: of every group.
        delayed: the target networks, ``actor_{group}`` of each group that learns among them.
        data: the whole sequences ``[*B, burn_in + T]``.
        steps: those after the burn-in.
        burn_in: steps that only warm hidden states up.
        from_stored: recurrent actors start from the stored hidden state.
    """
    groups = [actor.group for actor in actors.values()]
    following = steps.copy().set(NEXT, at_next(groups, steps))
    networks: dict[str, Any] = dict(delayed.items())
    for name, actor in actors.items():
        keys, network = actor.group.keys, networks.get(f"actor_{name}")
        if network is None:
            vector = _opponents_vector(actor, following)
        else:
            past = unroll(network, data, burn_in, from_stored) if hidden_key(network) else steps
            chooses = next_outputs(network, steps, past)
            if actor.group.action_mask:
                chooses.set(keys.action_mask, steps.get(next_key(keys.action_mask)))
            vector = actor.greedy_vector(chooses)
        alive = following.get(next_key(keys.mask)) if actor.group.mask else None
        following.set(next_key(keys.action_vector), zero_dead(vector, alive))
    return following


def _opponents_vector(opponent: Any, following: TensorDictBase) -> Tensor:
    """What an opponent does when it is called on the entries under ``next``, in its own way, greedy or not."""
    inputs = following.get(NEXT).select(*opponent.in_keys, strict=False)
    if IS_INIT in opponent.in_keys:
        # It goes on from the hidden state that was stored: the next observation is the one before any reset.
        inputs.set(IS_INIT, torch.zeros_like(following.get((NEXT, DONE))))
    group = opponent.group
    return group.action.vector(single_steps(opponent, inputs).get(group.keys.action))


@torch.no_grad()
def next_action_values(
    learners: Mapping[str, Any],
    delayed: nn.ModuleDict,
    data: TensorDictBase,
    following: TensorDictBase,
    burn_in: int,
    of_each_agent: MinimaxAdversary | PolicyInference | None,
) -> dict[str, Tensor]:
    """The target critics' values ``[*B, T, n_agents, 1]`` of what ``with_next_actions`` wrote.

    Args:
        learners: the actors of the groups that have critics.
        delayed: the target networks, ``critic_{group}`` and ``inference`` among them.
        data: the whole sequences.
        following: the steps after the burn-in with the next actions.
        burn_in: steps that only warm hidden states up.
        of_each_agent: what changes the others' actions from agent to agent.
    """
    networks: dict[str, Any] = dict(delayed.items())
    values = {}
    for name, actor in learners.items():
        critic, group = networks[f"critic_{name}"], actor.group
        past = unroll(critic, data, burn_in, False) if hidden_key(critic) else following
        inputs, own = next_inputs(critic, following, past), following.get(next_key(group.keys.action_vector))
        if of_each_agent is None:
            values[name] = single_steps(critic, inputs).get(group.keys.state_action_value)
            continue
        if isinstance(of_each_agent, MinimaxAdversary):
            rows = of_each_agent(critic, group.keys, inputs, own)
        else:
            rows = networks["inference"].rows(learners, following.get(NEXT), group, own)
        values[name] = values_of_rows(critic, group.keys, inputs, rows)
    return values
