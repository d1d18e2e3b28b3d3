"""``check_deterministic_loss``: the doctor for DDPG's and MADDPG's family."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase

from ctde_kit.testing import actor_gradient_rules, loss_rules
from ctde_kit.testing.deterministic_case import DeterministicCase, OtherActions
from ctde_kit.testing.entry_names import EntryNames, Keys
from ctde_kit.testing.findings import Report, examine, part_name
from ctde_kit.testing.loss_case import Losses, Parameters
from ctde_kit.testing.value_check import TARGET_RULES

DETERMINISTIC_RULES = (
    actor_gradient_rules.own_actor_alone,
    actor_gradient_rules.others_actions_are_replayed,
    actor_gradient_rules.both_targets_are_used,
    actor_gradient_rules.discrete_actions_are_hard,
    loss_rules.gradients_stay_home,
    loss_rules.every_parameter_learns,
    *TARGET_RULES,
    loss_rules.dead_agents_change_nothing,
    loss_rules.padding_changes_nothing,
    loss_rules.no_silent_broadcast,
)


def check_deterministic_loss(
    loss: Losses,
    batch: TensorDictBase,
    *,
    group: str | None = "agents",
    keys: Keys | None = None,
    actor: Parameters = None,
    critic: Parameters = None,
    actor_losses: Sequence[str] = ("loss_actor",),
    critic_losses: Sequence[str] = ("loss_value",),
    other_actions: OtherActions | None = None,
    raises: bool = True,
) -> Report:
    """Check a loss of deterministic actors and critics of actions against the rules of MADDPG's family.

    Args:
        loss: batch -> losses by name, such as ``MADDPGLoss``, TorchRL's ``DDPGLoss`` or a function.
        batch: what it takes, transitions ``[B]`` or sequences ``[*B, T]``; sizes of batch, time and agents should
            differ.
        group: the group's name; ``None`` for a single agent, whose entries are at the root.
        keys: entries that stand elsewhere than at ``(group, name)``.
        actor: the group's actor (a module or its parameters; without a module, here or in the loss, ``own_actor_alone``
            is skipped); ``None``: what the loss holds.
        critic: the group's critic, which writes ``state_action_value`` ``[*B, n_agents, 1]``; likewise.
        actor_losses: names of the losses that the actor learns from.
        critic_losses: names of those that the critic learns from.
        other_actions: what the others do in an agent's actor loss: ``replay``, as in the paper, ``current``, or
            ``None`` for either.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> import ctde_kit as ck
    >>> from ctde_kit.testing import check_deterministic_loss
    >>> env = ck.VmasEnv("navigation", num_envs=5)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.vector_dim, group.n_agents)
    >>> actor = ck.MultiAgentDeterministicActor(group, ck.own_observation(group), network)
    >>> critic = ck.action_value_critic(team, group, ck.MultiAgentMLP)
    >>> loss = ck.MADDPGLoss({"agents": actor}, {"agents": critic}, gamma=0.9)
    >>> check_deterministic_loss(loss, env.rollout(7, actor))["own_actor_alone"].figure
    '4 x 4 gradients, none off the diagonal'
    """
    case = DeterministicCase(
        loss,
        batch.detach(),
        EntryNames(group, keys),
        actor,
        critic,
        actor_losses,
        critic_losses,
        other_actions=other_actions,
    )
    return examine(f"check_deterministic_loss: {part_name(loss)}", DETERMINISTIC_RULES, case, raises)
