"""``check_policy_gradient_loss``: the doctor for PPO's family."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from tensordict import TensorDictBase
from torchrl.objectives import PPOLoss

from ctde_kit.testing import bootstrapping_rules, direction_rules, loss_rules, ratio_rules
from ctde_kit.testing.entry_names import EntryNames, Keys
from ctde_kit.testing.findings import Report, examine, part_name
from ctde_kit.testing.loss_case import LossCase, Losses, Parameters, Prepare, prepared_minibatch

POLICY_GRADIENT_RULES = (
    ratio_rules.first_ratio,
    ratio_rules.first_kl,
    direction_rules.advantage_is_followed,
    direction_rules.entropy_is_paid_for,
    loss_rules.dead_agents_change_nothing,
    loss_rules.padding_changes_nothing,
    loss_rules.no_silent_broadcast,
    loss_rules.gradients_stay_home,
    loss_rules.every_parameter_learns,
    bootstrapping_rules.advantage_from_next,
    bootstrapping_rules.truncated_advantage_bootstraps,
    bootstrapping_rules.terminated_advantage_is_cut,
)


def check_policy_gradient_loss(
    loss: Losses,
    batch: TensorDictBase,
    *,
    estimator: Prepare | None = None,
    minibatch: Prepare | None = None,
    group: str | None = "agents",
    keys: Keys | None = None,
    actor: Parameters = None,
    critic: Parameters = None,
    actor_losses: Sequence[str] = ("loss_objective", "loss_entropy"),
    critic_losses: Sequence[str] = ("loss_critic",),
    raises: bool = True,
) -> Report:
    """Check a policy-gradient loss and its advantages against the rules of PPO's family, before any update.

    Args:
        loss: batch -> losses by name, such as TorchRL's ``ClipPPOLoss`` or a function.
        batch: fresh experience ``[*B, T]`` that the current policy collected, with its log-probabilities. Sizes of
            batch, time and agents should differ.
        estimator: writes advantages and value targets into a batch; ``None``: the loss's own where it is one of
            TorchRL's PPO losses, else random numbers.
        minibatch: a prepared batch -> a minibatch, as the training loop makes it; ``None``: the batch itself.
        group: the group's name; ``None`` for a single agent, whose entries are at the root.
        keys: entries that stand elsewhere than at ``(group, name)``.
        actor: the policy (a module or its parameters; the rules of ratio and direction need a ``ProbabilisticActor``,
            here or in the loss); ``None``: the parameters of ``loss`` whose name begins with ``actor``.
        critic: the critic, likewise.
        actor_losses: names of the losses that the policy learns from.
        critic_losses: names of those that the critic learns from.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> import ctde_kit as ck
    >>> from ctde_kit.testing import check_policy_gradient_loss
    >>> env = ck.VmasEnv("navigation", num_envs=3, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critic = ck.value_critic(team, group, ck.MultiAgentMLP)
    >>> estimator = ck.AdvantageEstimator(critic, group.keys, gamma=0.99, lmbda=0.95)
    >>> loss = ck.MAPPOLoss(actor, critic)
    >>> report = check_policy_gradient_loss(loss, env.rollout(7, actor), estimator=estimator)
    >>> report["first_ratio"].verdict, report["gradients_stay_home"].verdict
    ('passed', 'passed')
    """
    names, batch = EntryNames(group, keys), batch.detach()
    prepare = _own_estimator(loss) if estimator is None else estimator
    fill = partial(_with_random_targets, names=names) if prepare is None else prepare
    prepared = prepared_minibatch(batch, fill, minibatch, estimator=prepare)
    case = LossCase(loss, prepared, names, actor, critic, actor_losses, critic_losses, prepared=prepare, fresh=batch)
    return examine(f"check_policy_gradient_loss: {part_name(loss)}", POLICY_GRADIENT_RULES, case, raises)


def _own_estimator(loss: Losses) -> Prepare | None:
    if not isinstance(loss, PPOLoss):
        return None

    def estimate(batch: TensorDictBase) -> TensorDictBase:
        return loss.value_estimator(
            batch, params=loss.critic_network_params, target_params=loss.target_critic_network_params
        )

    return estimate


def _with_random_targets(batch: TensorDictBase, names: EntryNames) -> TensorDictBase:
    like = batch.get(names.next("reward"))
    for name in ("advantage", "value_target", "value"):
        if names[name] not in batch.keys(True, True):
            batch.set(names[name], torch.randn_like(like))
    return batch
