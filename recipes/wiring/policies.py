"""Who acts for each group of a team: actors that learn, new or from an earlier run, and opponents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules import RunningMoments, TeamLatent, TeamPolicy
from ctde_kit.protocols import GroupActor
from ctde_kit.recipes.configs.actors import ActorConfig
from ctde_kit.recipes.configs.checks import building
from ctde_kit.recipes.configs.opponents import FrozenActorConfig, OpponentConfig, RunOpponent
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.wiring.saved_runs import SavedRun
from ctde_kit.recipes.wiring.team_channels import channels_across_groups, share_channel
from ctde_kit.specs import GroupSpec, TeamSpec

Actor = TypeVar("Actor", bound=nn.Module)


def team_policy(cfg: RecipeConfig, team: TeamSpec, device: str, *, latent_dim: int = 0) -> TeamPolicy:
    """The policy of all groups: opponents where ``cfg.opponents`` has them, else actors that ``cfg.policy()`` builds.

    The parameters of groups in ``cfg.initial`` are an earlier run's. With ``latent_dim``, all groups share a latent of
    this size while they collect.

    Raises:
        UserError: for groups that the team lacks or that are given twice, when nothing is left to train, and for runs
            that do not fit.
    """
    _check_groups(cfg, team)
    actors: dict[str, GroupActor] = {}
    for group in team:
        opponent = cfg.opponents.get(group.name)
        if opponent is None:
            with building("actor", cfg.actor):
                actor = cfg.policy().build(group, team)
        else:
            actor = build_opponent(opponent, group, team, cfg.task)
        assert isinstance(actor, nn.Module)
        if group.name in cfg.initial:
            if channels_across_groups(actor):
                raise UserError(
                    f"initial.{group.name}: with actor.across_groups=true all groups are one network, so none goes on "
                    "alone; go on with resume=RUN_DIR, or leave across_groups out"
                )
            _take_parameters(actor, Path(cfg.initial[group.name]), group, team, cfg.task)
        actors[group.name] = actor.to(device)
    share_channel(actors)
    return TeamPolicy(actors, TeamLatent(latent_dim) if latent_dim else None)


def learning_team(team: TeamSpec, policy: TeamPolicy) -> TeamSpec:
    """The groups that learn, as a team of their own; the global state stays the whole env's."""
    return TeamSpec(tuple(group for group in team if group.name in policy.learners), team.state_dim)


def learners_of(policy: TeamPolicy, kind: type[Actor]) -> dict[str, Actor]:
    """The actors that learn, by group; each of them is a ``kind``."""
    learners: dict[str, Actor] = {}
    for group, actor in policy.learners.items():
        assert isinstance(actor, kind)
        learners[group] = actor
    return learners


def actor_configs(cfg: RecipeConfig, team: TeamSpec) -> dict[str, ActorConfig]:
    """The configuration of each group's actor, which a run directory keeps beside the parameters."""
    return {group.name: _actor_config(cfg, group.name) for group in team}


def _actor_config(cfg: RecipeConfig, group: str) -> ActorConfig:
    opponent = cfg.opponents.get(group)
    if opponent is None:
        return cfg.policy()
    if not isinstance(opponent, RunOpponent):
        return opponent.for_task(cfg.task)
    return FrozenActorConfig(SavedRun(Path(opponent.directory)).actor_config(group), opponent.sampled)


def build_opponent(opponent: OpponentConfig, group: GroupSpec, team: TeamSpec, task: TaskConfig) -> GroupActor:
    """Who acts for ``group`` without learning.

    Args:
        opponent: scripted, or a run of the same task.
        group: of this env.
        team: all groups of this env, in its order.
        task: this env's configuration.

    Raises:
        UserError: where there is no such run, or it does not fit.
    """
    if not isinstance(opponent, RunOpponent):
        return opponent.for_task(task).build(group, team)
    run = SavedRun(Path(opponent.directory))
    run.check_task(task)
    # Its weights are drawn before they are loaded: this run's random numbers must not depend on its opponents.
    with torch.random.fork_rng():
        frozen = FrozenActorConfig(run.actor_config(group.name), opponent.sampled).build(group, team)
    saved = run.actor_state(group, team)
    check_fits(frozen.actor.state_dict(), saved, run.directory, group)
    frozen.actor.load_state_dict(saved)
    return frozen


def _take_parameters(actor: nn.Module, directory: Path, group: GroupSpec, team: TeamSpec, task: TaskConfig) -> None:
    """Load parameters and running statistics of an earlier run; exploration, kept in other buffers, starts anew."""
    run = SavedRun(directory)
    run.check_task(task)
    if group.name in run.opponents:
        raise UserError(
            f"initial.{group.name}={directory}: there the group was an opponent and did not learn; give the run that "
            "trained it"
        )
    taken = {name: parameter.data for name, parameter in actor.named_parameters()} | _statistics(actor)
    others = {name for name, _ in actor.named_buffers()} - {*taken}
    saved = {name: value for name, value in run.actor_state(group, team).items() if name not in others}
    check_fits(taken, saved, directory, group)
    actor.load_state_dict(saved, strict=False)


def _statistics(actor: nn.Module) -> dict[str, Tensor]:
    """The running statistics in ``actor``, by their names in its state."""
    return {
        f"{name}.{entry}": value
        for name, module in actor.named_modules()
        if isinstance(module, RunningMoments)
        for entry, value in module.named_buffers()
    }


def check_fits(expected: Mapping[str, Tensor], saved: Mapping[str, Tensor], directory: Path, group: GroupSpec) -> None:
    here, there = ({name: list(value.shape) for name, value in state.items()} for state in (expected, saved))
    name = next((name for name in sorted({**here, **there}) if here.get(name) != there.get(name)), None)
    if name is not None:
        raise UserError(
            f"{directory} does not fit group {group.name!r}: {name} is {there.get(name, 'missing')} there, expected "
            f"{here.get(name, 'none')}; give a run with the same network and task.params, "
            "and the same normalize_observations, and with critic=shared in both or in none"
        )


def _check_groups(cfg: RecipeConfig, team: TeamSpec) -> None:
    names = [group.name for group in team]
    for option, given in (("opponents", cfg.opponents), ("initial", cfg.initial)):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise UserError(f"{option}.{unknown[0]}: no such group; {cfg.task.name} has {', '.join(names)}")
    both = [name for name in cfg.initial if name in cfg.opponents]
    if both:
        raise UserError(f"initial.{both[0]}: the group is an opponent, too, and does not learn; leave one of them out")
    if all(name in cfg.opponents for name in names):
        raise UserError(f"opponents: nothing is left to train in {', '.join(names)}; leave one group out")
