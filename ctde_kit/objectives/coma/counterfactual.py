"""What an agent's action is worth compared with what its policy would do, and what COMA's losses share."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.entries import check_same_shape
from ctde_kit.entry_tables import Entry
from ctde_kit.errors import UserError
from ctde_kit.objectives.read_entries import entries_read_by
from ctde_kit.protocols import HasGroup
from ctde_kit.specs import GroupSpec


def counterfactual_advantage(action_value: Tensor, probability: Tensor, index: Tensor) -> Tensor:
    """``A_i = Q(s, u) - sum_u' pi(u'|tau_i) Q(s, (u_-i, u'))`` of each agent, ``[*B, n_agents]``.

    Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", eq. 4. Values of actions that the policy never
    takes, such as forbidden ones, change nothing, whatever they are.

    Args:
        action_value: the value of each agent's every action, given the others', ``[*B, n_agents, A]``.
        probability: the policy's, same shape.
        index: the action that each agent took, int64 ``[*B, n_agents]``.

    >>> import torch
    >>> from ctde_kit.objectives import counterfactual_advantage
    >>> values, policy = torch.tensor([[4.0, 0.0, torch.inf]]), torch.tensor([[0.25, 0.75, 0.0]])
    >>> counterfactual_advantage(values, policy, torch.tensor([0]))
    tensor([3.])
    """
    check_same_shape(action_value=action_value, probability=probability)
    chosen = action_value.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return chosen - (probability * action_value.masked_fill(probability == 0, 0)).sum(-1)


def chosen_index(group: GroupSpec, action: Tensor) -> Tensor:
    """The index ``[*B, n_agents]`` of actions in the env's form; 0 for what is no action of the group."""
    return group.action.vector(action).int().argmax(-1)


def critic_entries(critic: TensorDictModuleBase) -> list[Entry]:
    """What a critic reads of a batch; action vectors follow from the actions."""
    return [entry for entry in entries_read_by(critic) if entry.key[-1] != "action_vector"]


def check_critic(loss: str, critic: object) -> GroupSpec:
    """The group whose actions ``critic`` values.

    Raises:
        UserError: for a critic that gives no value of every action.
    """
    if not isinstance(critic, TensorDictModuleBase) or not isinstance(critic, HasGroup):
        raise UserError(f"{loss}: critic is a {type(critic).__name__}: expected counterfactual_critic(...)")
    group = critic.group
    if group.keys.action_value not in critic.out_keys:
        raise UserError(
            f"{loss}: critic is a {type(critic).__name__} and writes no {group.keys.action_value}, the value of every "
            "action of each agent; give counterfactual_critic(...)"
        )
    group.check_one_choice("COMA")
    return group
