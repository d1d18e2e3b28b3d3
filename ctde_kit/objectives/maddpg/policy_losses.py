"""Actor losses of MADDPG: minus each agent's own value, or minus the team's mixed value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.keys import IS_INIT
from ctde_kit.objectives.maddpg.ensembles import ensemble_mean
from ctde_kit.objectives.maddpg.joint_actions import frozen, own_action_values, values_of_rows
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.q_values import team_value
from ctde_kit.objectives.unroll import hidden_key, single_steps
from ctde_kit.specs import GroupSpec


def own_policy_loss(
    critics: Mapping[str, TensorDictModuleBase],
    groups: Mapping[str, GroupSpec],
    steps: TensorDictBase,
    values: Mapping[str, TensorDictBase],
    vectors: Mapping[str, Tensor],
    masks: Mapping[str, Sequence[Tensor]],
    *,
    current: bool,
    adversary: MinimaxAdversary | None,
) -> Tensor:
    """Minus each agent's value of its current action, given the others' actions (Lowe et al. 2017, section 4.1).

    Args:
        critics: of the groups that learn.
        groups: the specs of all groups.
        steps: the entries that the critics read, ``[*B, T]``, with the stored actions.
        values: the entries that each critic wrote when it was unrolled over ``steps``.
        vectors: current actions ``[*B, T, n_agents, D]`` of the groups that learn, with their gradients.
        masks: the ``sub_policy_masks`` of each of these groups.
        current: use the others' current actions, detached, instead of the stored ones.
        adversary: moves the others' actions; ``None``: they stay as they are.
    """
    losses = []
    for name, critic in critics.items():
        keys, inputs = groups[name].keys, critic_inputs(critic, steps, values[name])
        if current:
            for other, vector in vectors.items():
                inputs.set(groups[other].keys.action_vector, vector.detach())
        with frozen(critic):
            if adversary is None:
                value = own_action_values(critic, keys, inputs, vectors[name])
            else:
                rows = adversary(critic, keys, inputs, vectors[name])
                value = values_of_rows(critic, keys, inputs, rows)
        losses.append(-ensemble_mean(value, masks[name]))
    return torch.stack(losses).sum()


def team_policy_loss(
    critics: Mapping[str, TensorDictModuleBase],
    mixer: TensorDictModuleBase,
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
        groups: the specs of all groups.
        steps: as in ``own_policy_loss``.
        values: as in ``own_policy_loss``.
        vectors: as in ``own_policy_loss``.
        mask: which steps are valid, bool ``[*B, T, 1, 1]``.
        mixed: the key of the team's value.
    """
    values_by_group = {}
    with frozen(mixer, *critics.values()):
        for name, critic in critics.items():
            inputs = critic_inputs(critic, steps, values[name])
            for other, vector in vectors.items():
                inputs.set(groups[other].keys.action_vector, vector)
            values_by_group[name] = single_steps(critic, inputs).get(groups[name].keys.state_action_value)
        value = mixed_value(mixer, groups, steps.copy(), values_by_group, mixed)
    return -masked_mean(value, mask)


def critic_inputs(critic: TensorDictModuleBase, steps: TensorDictBase, values: TensorDictBase) -> TensorDictBase:
    """The entries that a critic reads at each step; for a recurrent one also its hidden state before that step."""
    inputs = steps.select(*critic.in_keys, strict=False)
    key = hidden_key(critic)
    if key is not None:
        inputs.set(key, values.get(key).detach()).set(IS_INIT, torch.zeros_like(steps.get(IS_INIT)))
    return inputs


def mixed_value(
    mixer: TensorDictModuleBase,
    groups: Mapping[str, GroupSpec],
    tensordict: TensorDictBase,
    values: Mapping[str, Tensor],
    mixed: NestedKey,
) -> Tensor:
    """The team's value ``[*B, T, 1, 1]``, mixed from its groups' ``values`` ``[*B, T, n_agents, 1]``."""
    for name, value in values.items():
        tensordict.set(groups[name].keys.chosen_action_value, value)
    return team_value(mixer, tensordict, mixed)
