"""What deterministic actors climb: each agent's own value, or a team's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.keys import IS_INIT
from ctde_kit.objectives.ensembles import ensemble_mean
from ctde_kit.objectives.joint_actions import frozen, own_action_values, values_of_rows
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.minimax import MinimaxAdversary
from ctde_kit.objectives.unroll import hidden_key, single_steps
from ctde_kit.specs import GroupSpec


def own_policy_loss(
    critics: Mapping[str, Any],
    groups: Mapping[str, GroupSpec],
    steps: TensorDictBase,
    values: Mapping[str, TensorDictBase],
    vectors: Mapping[str, Tensor],
    replays: Mapping[str, Sequence[Tensor]],
    *,
    current: bool,
    adversary: MinimaxAdversary | None,
) -> Tensor:
    """Minus each agent's value of its own current action among the others' (Lowe et al. 2017, section 4.1).

    Args:
        critics: of the groups that learn.
        groups: all of them.
        steps: what the critics read, ``[*B, T]``, with the actions of the replay.
        values: what each critic wrote when it was unrolled over ``steps``.
        vectors: current actions ``[*B, T, n_agents, D]`` of the groups that learn, with their gradients.
        replays: of each of them, what its sub-policies learn from, bool ``[*B, T, n_agents, 1]``: ``replays_of``.
        current: the others' actions are current ones, too, detached.
        adversary: moves the others' actions.
    """
    losses = []
    for name, critic in critics.items():
        keys, around = groups[name].keys, critic_inputs(critic, steps, values[name])
        if current:
            for other, vector in vectors.items():
                around.set(groups[other].keys.action_vector, vector.detach())
        with frozen(critic):
            if adversary is None:
                value = own_action_values(critic, keys, around, vectors[name])
            else:
                rows = adversary(critic, keys, around, vectors[name])
                value = values_of_rows(critic, keys, around, rows)
        losses.append(-ensemble_mean(value, replays[name]))
    return torch.stack(losses).sum()


def team_policy_loss(
    critics: Mapping[str, Any],
    mixer: nn.Module,
    groups: Mapping[str, GroupSpec],
    steps: TensorDictBase,
    values: Mapping[str, TensorDictBase],
    vectors: Mapping[str, Tensor],
    mask: Tensor,
    mixed: NestedKey,
) -> Tensor:
    """Minus the team's mixed value of all current actions (Peng et al. 2021).

    Args:
        critics: of every group.
        mixer: writes ``mixed`` at the root.
        groups: all of them.
        steps: as in ``own_policy_loss``, like ``values`` and ``vectors``.
        values: what each critic wrote.
        vectors: current actions of the groups that learn.
        mask: what counts, bool ``[*B, T, 1, 1]``.
        mixed: the key of the team's value.
    """
    parts = {}
    with frozen(mixer, *critics.values()):
        for name, critic in critics.items():
            around = critic_inputs(critic, steps, values[name])
            for other, vector in vectors.items():
                around.set(groups[other].keys.action_vector, vector)
            parts[name] = single_steps(critic, around).get(groups[name].keys.state_action_value)
        value = mixed_value(mixer, groups, steps.copy(), parts, mixed)
    return -masked_mean(value, mask)


def critic_inputs(critic: Any, steps: TensorDictBase, values: TensorDictBase) -> TensorDictBase:
    """What a critic reads at each step; a recurrent one from the hidden state that the step started from."""
    inputs = steps.select(*critic.in_keys, strict=False)
    key = hidden_key(critic)
    if key is not None:
        inputs.set(key, values.get(key).detach()).set(IS_INIT, torch.zeros_like(steps.get(IS_INIT)))
    return inputs


def mixed_value(
    mixer: Any,
    groups: Mapping[str, GroupSpec],
    tensordict: TensorDictBase,
    values: Mapping[str, Tensor],
    mixed: NestedKey,
) -> Tensor:
    """The team's value ``[*B, T, 1, 1]`` of its groups' ``values`` ``[*B, T, n_agents, 1]``."""
    for name, value in values.items():
        tensordict.set(groups[name].keys.chosen_action_value, value)
    return mixer(tensordict).get(mixed).unsqueeze(-2)
