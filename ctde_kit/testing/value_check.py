"""``check_value_loss``: the doctor for Q-learning's family."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase

from ctde_kit.testing import bootstrapping_rules, loss_rules, q_learning_rules, stored_action_rules
from ctde_kit.testing.entry_names import EntryNames, Keys
from ctde_kit.testing.findings import Report, examine, part_name
from ctde_kit.testing.loss_case import LossCase, Losses, Parameters

TARGET_RULES = (
    bootstrapping_rules.target_from_next,
    bootstrapping_rules.truncation_bootstraps,
    bootstrapping_rules.termination_cuts,
    stored_action_rules.stored_action_is_not_in_the_target,
    q_learning_rules.target_is_detached,
    q_learning_rules.target_networks_are_used,
)
VALUE_RULES = (
    *TARGET_RULES,
    q_learning_rules.masks_in_targets,
    q_learning_rules.all_masked_agent_is_finite,
    loss_rules.dead_agents_change_nothing,
    loss_rules.padding_changes_nothing,
    loss_rules.no_silent_broadcast,
    loss_rules.every_parameter_learns,
)


def check_value_loss(
    loss: Losses,
    batch: TensorDictBase,
    *,
    group: str | None = "agents",
    keys: Keys | None = None,
    networks: Parameters = None,
    losses: Sequence[str] = (),
    double_q: bool = False,
    raises: bool = True,
) -> Report:
    """Check a loss of action values against the rules of Q-learning: targets, masks, dead agents, gradients.

    Args:
        loss: batch -> losses by name, such as ``QMixLoss``, TorchRL's ``DQNLoss`` or a function.
        batch: what it takes, transitions ``[B]`` or sequences ``[*B, T]``; sizes of batch, time and agents should
            differ.
        group: the group's name; ``None`` for a single agent, whose entries are at the root.
        keys: entries that stand elsewhere than at ``(group, name)``; a team's reward is ``{"reward": "reward"}``.
        networks: what learns (a module or its parameters); ``None``: all parameters of ``loss``.
        losses: names of the losses; empty: everything whose name begins with ``loss``.
        double_q: whether the online network must choose the action that the target network values.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> import ctde_kit as ck
    >>> from ctde_kit.testing import check_value_loss
    >>> env = ck.VmasEnv("navigation", num_envs=5, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.vector_dim, group.n_agents)
    >>> actor = ck.MultiAgentQActor(group, ck.own_observation(group), network)
    >>> loss = ck.QMixLoss({"agents": actor}, ck.VDNMixer(team), gamma=0.9)
    >>> batch = ck.TeamReward(team, "mean")(env.rollout(7, actor))
    >>> check_value_loss(loss, batch, keys={"reward": "reward"}, double_q=True)["double_q"].verdict
    'passed'
    """
    case = LossCase(loss, batch.detach(), EntryNames(group, keys), critic=networks, value_losses=losses)
    rules = (*VALUE_RULES, q_learning_rules.demanded_double_q) if double_q else VALUE_RULES
    return examine(f"check_value_loss: {part_name(loss)}", rules, case, raises)
