"""Who acts for each group of a team: learners, new or from an earlier run, and opponents."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctde_kit.recipes.actor_networks import channels_across_groups, share_channel
from ctde_kit.recipes.loading import instantiate_config, read_config
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules import TeamPolicy
from ctde_kit.modules.actors.team_policy import GroupActor
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import latest_checkpoint, read_checkpoint


def team_policy(
    cfg: Any, team: TeamSpec, build_actor: Callable[[Any, GroupSpec, TeamSpec], GroupActor], device: str
) -> TeamPolicy:
    """The policy of all groups: ``cfg.opponents``' where they are given, else ``build_actor(cfg, group, team)``.

    The parameters of groups in ``cfg.initial`` are an earlier run's.

    Raises:
        UserError: for groups that the team lacks or that are given twice, when nothing is left to train, and for runs
            that do not fit.
    """
    _check_groups(cfg, team)
    actors: dict[str, Any] = {}
    for group in team:
        opponent = cfg.opponents.get(group.name)
        actor: Any = build_actor(cfg, group, team) if opponent is None else opponent.build(group, team, cfg.task)
        if group.name in cfg.initial:
            if channels_across_groups(actor):
                raise UserError(
                    f"initial.{group.name}: with actor.across_groups=true all groups are one network, so none goes on "
                    "alone; go on with resume=RUN_DIR, or leave across_groups out"
                )
            _take_parameters(actor, Path(cfg.initial[group.name]), group, team, cfg.task)
        actors[group.name] = actor.to(device)
    share_channel(actors)
    return TeamPolicy(actors)


def learning_team(team: TeamSpec, policy: TeamPolicy) -> TeamSpec:
    """The groups that learn, as a team of their own; the global state stays the whole env's."""
    return TeamSpec(tuple(group for group in team if group.name in policy.learners), team.state_dim)


def load_group(directory: Path, group: GroupSpec, team: TeamSpec, task: Any) -> GroupActor:
    """One group's actor as a run's last checkpoint left it.

    Args:
        directory: of the run.
        group: of this env.
        team: all groups of this env, in its order.
        task: this env's configuration; the run must be of the same task.

    Raises:
        UserError: where there is no such run, or it does not fit.
    """
    config = _config(directory, task)
    opponent = config.opponents.get(group.name)
    if opponent is not None:
        actor: Any = opponent.build(group, team, task)
    else:
        actor = importlib.import_module(f"ctde_kit.recipes.{config.algorithm}").build_actor(config, group, team)
    saved = _saved(directory, config.algorithm, group, team)
    _check_fits(actor.state_dict(), saved, directory, group)
    actor.load_state_dict(saved)
    return actor


def _take_parameters(actor: nn.Module, directory: Path, group: GroupSpec, team: TeamSpec, task: Any) -> None:
    """Parameters alone: exploration, which is kept in buffers, starts as this run is configured."""
    config = _config(directory, task)
    if group.name in config.opponents:
        raise UserError(
            f"initial.{group.name}={directory}: there the group was an opponent and did not learn; give the run that "
            "trained it"
        )
    parameters = {name: parameter.data for name, parameter in actor.named_parameters()}
    buffers = {name for name, _ in actor.named_buffers()}
    saved = _saved(directory, config.algorithm, group, team)
    saved = {name: value for name, value in saved.items() if name not in buffers}
    _check_fits(parameters, saved, directory, group)
    actor.load_state_dict(saved, strict=False)


def _config(directory: Path, task: Any) -> Any:
    config = instantiate_config(read_config(directory))
    if config.task.name != task.name:
        raise UserError(f"{directory} is a run of {config.task.name}, this is {task.name}; give a run of the same task")
    theirs, ours = (getattr(one, "continuous_actions", None) for one in (config.task, task))
    if theirs != ours:
        raise UserError(
            f"{directory} was trained with task.continuous_actions={str(theirs).lower()}, this is "
            f"{str(ours).lower()}; set it alike"
        )
    return config


def _saved(directory: Path, algorithm: str, group: GroupSpec, team: TeamSpec) -> dict[str, Tensor]:
    content = read_checkpoint(latest_checkpoint(directory / "checkpoints"), algorithm=algorithm)
    prefix = f"module.{[other.name for other in team].index(group.name)}."
    policy = content["parts"]["policy"]
    return {name.removeprefix(prefix): value for name, value in policy.items() if name.startswith(prefix)}


def _check_fits(expected: dict[str, Tensor], saved: dict[str, Tensor], directory: Path, group: GroupSpec) -> None:
    here, there = ({name: list(value.shape) for name, value in state.items()} for state in (expected, saved))
    name = next((name for name in sorted({**here, **there}) if here.get(name) != there.get(name)), None)
    if name is not None:
        raise UserError(
            f"{directory} does not fit group {group.name!r}: {name} is {there.get(name, 'missing')} there, expected "
            f"{here.get(name, 'none')}; give a run with the same network and task.params"
        )


def _check_groups(cfg: Any, team: TeamSpec) -> None:
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
