"""Builds what MAPPO and HAPPO share: environment, policies, losses, estimators of advantages, and buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from ctde_kit.data import OnPolicyBuffer
from ctde_kit.modules import MultiAgentActor
from ctde_kit.recipes.configs.ppo import PPOConfig
from ctde_kit.recipes.wiring.collecting import collector
from ctde_kit.recipes.wiring.critic_parts import critics_team, keys_read
from ctde_kit.recipes.wiring.normalization import observation_norm, one_after_the_other, reward_norm
from ctde_kit.recipes.wiring.policies import learners_of, learning_team, team_policy
from ctde_kit.recipes.wiring.recurrence import compiles_updates, is_recurrent, sequence_length
from ctde_kit.recipes.wiring.setting import begin
from ctde_kit.training import Parts
from ctde_kit.training.parts import Metrics, Update

if TYPE_CHECKING:
    from ctde_kit.objectives import AdvantageEstimator, MAPPOLoss

    Loss = TypeVar("Loss", bound=MAPPOLoss)
else:
    Loss = TypeVar("Loss")


@dataclass(frozen=True)
class PolicyGradient(Generic[Loss]):
    """Losses of a recipe of PPO's family, and what becomes its parts once there is an update for them.

    Args:
        losses: of each group that learns.
        compiles_updates: whether gradient steps are compiled.
        parts: makes all parts of the update, its schedule, and what anneals.
    """

    losses: dict[str, Loss]
    compiles_updates: bool
    parts: Callable[[Update, Callable[[Any, Any], Iterable[Metrics]], Callable[[int], None]], Parts]


def policy_gradient(cfg: PPOConfig, kind: type[Loss], *, of_team: bool = False) -> PolicyGradient[Loss]:
    """Environment, policies, losses of class ``kind``, estimators of advantages, and buffer of a recipe.

    Args:
        cfg: its configuration.
        kind: the class of its losses.
        of_team: whether a group's agents have one advantage together.
    """
    run = begin(cfg, updates_per_frame=cfg.epochs / cfg.frames_per_update)
    team = critics_team(run.env, cfg.critic)
    policy = team_policy(cfg, team, run.device)
    rewards = reward_norm(cfg, learning_team(team, policy), run.device)
    losses: dict[str, Loss] = {}
    estimators: dict[str, AdvantageEstimator] = {}
    for name, actor in learners_of(policy, MultiAgentActor).items():
        losses[name], estimators[name] = cfg.objective(
            kind, team[name], team, actor, rewards, run.device, of_team=of_team
        )
    observations = observation_norm(cfg, team, policy, run.device, *losses.values())
    length = sequence_length(cfg.sequence_length, run.steps_per_batch, is_recurrent(*losses.values()))

    def parts(
        update: Update, update_schedule: Callable[[Any, Any], Iterable[Metrics]], anneal: Callable[[int], None]
    ) -> Parts:
        return Parts(
            collector=collector(cfg, run, team, policy),
            prepare=one_after_the_other(rewards, torch.nn.Sequential(*estimators.values())),
            buffer=OnPolicyBuffer(cfg.frames_per_update, length, keys=keys_read(losses.values(), team)),
            update_schedule=update_schedule,
            update=update,
            policy=policy,
            anneal=anneal,
            observation_norm=observations,
        )

    return PolicyGradient(losses, compiles_updates(run, *losses.values()), parts)
