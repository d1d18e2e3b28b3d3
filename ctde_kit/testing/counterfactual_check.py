"""``check_counterfactual_loss``: the doctor for COMA's family."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from tensordict import TensorDictBase
from torch import nn

from ctde_kit.testing import bootstrapping_rules, counterfactual_rules, loss_rules
from ctde_kit.testing.entry_names import EntryNames, Keys
from ctde_kit.testing.findings import Report, drawing_from, examine, part_name
from ctde_kit.testing.loss_case import LossCase, Losses, Parameters, Prepare, prepared_minibatch

COUNTERFACTUAL_RULES = (
    counterfactual_rules.own_action_is_hidden,
    counterfactual_rules.common_value_cancels,
    counterfactual_rules.forbidden_values_change_nothing,
    counterfactual_rules.counterfactual_advantage_is_followed,
    loss_rules.dead_agents_change_nothing,
    loss_rules.padding_changes_nothing,
    loss_rules.no_silent_broadcast,
    loss_rules.gradients_stay_home,
    loss_rules.every_parameter_learns,
    bootstrapping_rules.advantage_from_next,
    bootstrapping_rules.truncated_advantage_bootstraps,
    bootstrapping_rules.terminated_advantage_is_cut,
)


def check_counterfactual_loss(
    loss: Losses,
    batch: TensorDictBase,
    *,
    critic: nn.Module,
    actor: Parameters = None,
    estimator: Prepare | None = None,
    minibatch: Prepare | None = None,
    group: str | None = "agents",
    keys: Keys | None = None,
    actor_losses: Sequence[str] = ("loss_actor", "loss_entropy"),
    critic_losses: Sequence[str] = ("loss_qvalue",),
    raises: bool = True,
) -> Report:
    """Check a policy loss with counterfactual baselines, its critic and its targets against the rules of COMA's family.

    Args:
        loss: batch -> the losses of actor and critic by name, such as a function that calls ``COMACriticLoss`` and
            ``COMAActorLoss``.
        batch: fresh experience ``[*B, T]`` that the current policy collected. Sizes of batch, time and agents should
            differ.
        critic: writes the value of each agent's every action, ``action_value`` ``[*B, n_agents, A]``.
        actor: the policy (a module or its parameters; one rule needs a ``ProbabilisticActor``).
        estimator: writes value targets into a batch; ``None``: they are random numbers.
        minibatch: a prepared batch -> a minibatch, as the training loop makes it; ``None``: the batch itself.
        group: the group's name; ``None`` for a single agent, whose entries are at the root.
        keys: entries that stand elsewhere than at ``(group, name)``; a team's reward is ``{"reward": "reward"}``.
        actor_losses: names of the losses that the policy learns from.
        critic_losses: names of those that the critic learns from.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> import ctde_kit as ck
    >>> from ctde_kit.testing import check_counterfactual_loss
    >>> env = ck.VmasEnv("navigation", num_envs=3, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critic = ck.modules.counterfactual_critic(team, group, ck.MultiAgentMLP)
    >>> critic_loss, actor_loss = ck.objectives.COMACriticLoss(critic), ck.objectives.COMAActorLoss(actor, critic)
    >>> def both(batch):
    ...     return {**critic_loss(batch), **actor_loss(batch)}
    >>> report = check_counterfactual_loss(both, env.rollout(7, actor), critic=critic, actor=actor)
    >>> report["own_action_is_hidden"].figure
    "4 agents, values move with the others' actions alone"
    """
    names, batch = EntryNames(group, keys), batch.detach()
    prepare = None if estimator is None else _drawing_alike(estimator)
    fill = partial(_with_random_targets, names=names) if prepare is None else prepare
    prepared = prepared_minibatch(batch, fill, minibatch, estimator=estimator)
    case = LossCase(loss, prepared, names, actor, critic, actor_losses, critic_losses, prepared=prepare, fresh=batch)
    return examine(f"check_counterfactual_loss: {part_name(loss)}", COUNTERFACTUAL_RULES, case, raises)


def _with_random_targets(batch: TensorDictBase, names: EntryNames) -> TensorDictBase:
    action_like = batch.get(names["action"])
    shape = (*batch.shape, *action_like.shape[batch.ndim : batch.ndim + (names.group is not None)], 1)
    return batch.set(names["value_target"], torch.randn(shape))


def _drawing_alike(estimator: Prepare) -> Prepare:
    """The same estimator, with the same random numbers in each call: it may draw the actions that it bootstraps."""

    def estimate(batch: TensorDictBase) -> TensorDictBase:
        with drawing_from(7):
            return estimator(batch)

    return estimate
