"""Next actions of the target actors, and their values by the target critics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.keys import DONE, IS_INIT, NEXT, next_key
from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.joint_actions import (
    DeterministicActor,
    LearningActor,
    Opponent,
    values_of_rows,
    zero_dead,
)
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.maddpg.target_smoothing import TargetPolicySmoothing
from ctde_kit.objectives.q_values import at_next
from ctde_kit.objectives.unroll import hidden_key, next_inputs, next_outputs, single_steps, unroll


@torch.no_grad()
def target_actions(
    learners: Mapping[str, DeterministicActor],
    target_actors: Mapping[str, TensorDictModuleBase],
    data: TensorDictBase,
    steps: TensorDictBase,
    burn_in: int,
    use_stored_hidden: bool,
    smoothing: TargetPolicySmoothing | None,
) -> dict[str, Tensor]:
    """The next actions of the target actors, by group, vectors ``[*B, T, n_agents, D]``.

    Args:
        learners: the actors of the groups that learn.
        target_actors: their target networks.
        data: the whole sequences ``[*B, burn_in + T]``.
        steps: the steps after the burn-in.
        burn_in: steps that only warm hidden states up.
        use_stored_hidden: recurrent actors start from the stored hidden state.
        smoothing: noise on these actions; ``None`` for none.
    """
    vectors = {}
    for name, actor in learners.items():
        network = target_actors[name]
        past = unroll(network, data, burn_in, use_stored_hidden) if hidden_key(network) else steps
        vector = actor.greedy_vector(next_policy(actor, network, steps, past))
        vectors[name] = vector if smoothing is None else smoothing(actor.group.action, vector)
    return vectors


def next_policy(
    actor: LearningActor, network: TensorDictModuleBase, steps: TensorDictBase, past: TensorDictBase
) -> TensorDictBase:
    """What ``network`` writes on the next observations, and which next actions of its group are allowed."""
    policy = next_outputs(network, steps, past)
    if actor.group.action_mask:
        policy.set(actor.group.keys.action_mask, steps.get(next_key(actor.group.keys.action_mask)))
    return policy


@torch.no_grad()
def with_next_actions(
    actors: Mapping[str, LearningActor | Opponent], vectors: Mapping[str, Tensor], steps: TensorDictBase
) -> TensorDictBase:
    """``steps`` with the next actions of all groups under ``next``, vectors ``[*B, T, n_agents, D]``.

    Args:
        actors: of every group.
        vectors: the next actions of the groups that learn; opponents are called for theirs.
        steps: the steps that are learned from.
    """
    groups = [actor.group for actor in actors.values()]
    following = steps.copy().set(NEXT, at_next(groups, steps))
    for name, actor in actors.items():
        keys, vector = actor.group.keys, vectors.get(name)
        if vector is None:
            vector = _opponents_vector(cast(Opponent, actor), following)
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
    critics: Mapping[str, TensorDictModuleBase],
    learners: Mapping[str, DeterministicActor],
    data: TensorDictBase,
    following: TensorDictBase,
    burn_in: int,
    others: MinimaxAdversary | PolicyInference | None,
) -> dict[str, Tensor]:
    """The target critics' values ``[*B, T, n_agents, 1]`` of what ``with_next_actions`` wrote.

    Args:
        critics: the target critics.
        learners: the actors of the same groups.
        data: the whole sequences.
        following: the steps after the burn-in with the next actions.
        burn_in: steps that only warm hidden states up.
        others: replaces the other agents' next actions in each agent's value; ``None``: the target actors give them.
    """
    values = {}
    for name, critic in critics.items():
        group = learners[name].group
        inputs = inputs_at_next(critic, data, following, burn_in)
        own_action = following.get(next_key(group.keys.action_vector))
        if others is None:
            values[name] = single_steps(critic, inputs).get(group.keys.state_action_value)
            continue
        if isinstance(others, MinimaxAdversary):
            rows = others(critic, group.keys, inputs, own_action)
        else:
            rows = others.rows(learners, following.get(NEXT), group, own_action)
        values[name] = values_of_rows(critic, group.keys, inputs, rows)
    return values


def inputs_at_next(
    critic: TensorDictModuleBase, data: TensorDictBase, following: TensorDictBase, burn_in: int
) -> TensorDictBase:
    """What a critic reads of each step's next state and actions, including a recurrent critic's hidden state."""
    past = unroll(critic, data, burn_in, False) if hidden_key(critic) else following
    return next_inputs(critic, following, past)
