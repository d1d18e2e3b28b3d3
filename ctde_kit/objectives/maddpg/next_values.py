"""Next actions of the target actors, and their values by the target critics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from ctde_kit.keys import DONE, IS_INIT, NEXT, next_key
from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.joint_actions import DeterministicActor, Opponent, values_of_rows, zero_dead
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.q_values import at_next
from ctde_kit.objectives.unroll import hidden_key, next_inputs, next_outputs, single_steps, unroll


@torch.no_grad()
def with_next_actions(
    actors: Mapping[str, DeterministicActor | Opponent],
    target_networks: nn.ModuleDict,
    data: TensorDictBase,
    steps: TensorDictBase,
    burn_in: int,
    use_stored_hidden: bool,
) -> TensorDictBase:
    """``steps`` with the next actions of target actors and opponents under ``next``, vectors ``[*B, T, n_agents, D]``.

    Args:
        actors: of every group.
        target_networks: ``actor_{group}`` of each group that learns among them.
        data: the whole sequences ``[*B, burn_in + T]``.
        steps: those after the burn-in.
        burn_in: steps that only warm hidden states up.
        use_stored_hidden: recurrent actors start from the stored hidden state.
    """
    groups = [actor.group for actor in actors.values()]
    following = steps.copy().set(NEXT, at_next(groups, steps))
    networks = cast("dict[str, TensorDictModuleBase]", dict(target_networks.items()))
    for name, actor in actors.items():
        keys, network = actor.group.keys, networks.get(f"actor_{name}")
        if network is None:
            vector = _opponents_vector(cast(Opponent, actor), following)
        else:
            past = unroll(network, data, burn_in, use_stored_hidden) if hidden_key(network) else steps
            policy = next_outputs(network, steps, past)
            if actor.group.action_mask:
                policy.set(keys.action_mask, steps.get(next_key(keys.action_mask)))
            vector = cast(DeterministicActor, actor).greedy_vector(policy)
        alive = following.get(next_key(keys.mask)) if actor.group.mask else None
        following.set(next_key(keys.action_vector), zero_dead(vector, alive))
    return following


def _opponents_vector(opponent: Opponent, following: TensorDictBase) -> Tensor:
    """An opponent's next action, as it gives it when called on the entries under ``next``, greedy or not."""
    inputs = following.get(NEXT).select(*opponent.in_keys, strict=False)
    if IS_INIT in opponent.in_keys:
        # It goes on from the hidden state that was stored: the next observation is the one before any reset.
        inputs.set(IS_INIT, torch.zeros_like(following.get((NEXT, DONE))))
    group = opponent.group
    return group.action.vector(single_steps(opponent, inputs).get(group.keys.action))


@torch.no_grad()
def next_action_values(
    learners: Mapping[str, DeterministicActor],
    target_networks: nn.ModuleDict,
    data: TensorDictBase,
    following: TensorDictBase,
    burn_in: int,
    others: MinimaxAdversary | PolicyInference | None,
) -> dict[str, Tensor]:
    """The target critics' values ``[*B, T, n_agents, 1]`` of what ``with_next_actions`` wrote.

    Args:
        learners: the actors of the groups that have critics.
        target_networks: ``critic_{group}`` and ``inference`` among them.
        data: the whole sequences.
        following: the steps after the burn-in with the next actions.
        burn_in: steps that only warm hidden states up.
        others: what gives each agent other actions of the others than the target actors'; ``None`` for nothing.
    """
    networks = cast("dict[str, TensorDictModuleBase]", dict(target_networks.items()))
    values = {}
    for name, actor in learners.items():
        critic, group = networks[f"critic_{name}"], actor.group
        past = unroll(critic, data, burn_in, False) if hidden_key(critic) else following
        inputs, own_action = next_inputs(critic, following, past), following.get(next_key(group.keys.action_vector))
        if others is None:
            values[name] = single_steps(critic, inputs).get(group.keys.state_action_value)
            continue
        if isinstance(others, MinimaxAdversary):
            rows = others(critic, group.keys, inputs, own_action)
        else:
            rows = cast(PolicyInference, target_networks["inference"]).rows(
                learners, following.get(NEXT), group, own_action
            )
        values[name] = values_of_rows(critic, group.keys, inputs, rows)
    return values
