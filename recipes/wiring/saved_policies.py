"""Saved policies in environments of their own: what evaluating, watching and exporting a run begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.utils import ExplorationType

from ctde_kit.errors import UserError
from ctde_kit.modules import TeamPolicy
from ctde_kit.protocols import GroupActor
from ctde_kit.recipes.configs.data import read_data
from ctde_kit.recipes.configs.opponents import HeuristicOpponent, OpponentConfig, RandomOpponent, ZeroOpponent
from ctde_kit.recipes.configs.own_code import code_of
from ctde_kit.recipes.configs.policy_options import LAST, PolicyOptions
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.wiring.devices import resolve_device
from ctde_kit.recipes.wiring.evaluating import EVALUATION_SEED
from ctde_kit.recipes.wiring.policies import build_opponent, check_fits
from ctde_kit.recipes.wiring.saved_runs import ACTORS_FILE, SavedRun, state_of_group
from ctde_kit.recipes.wiring.team_channels import share_channel
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import checkpoint_paths, latest_checkpoint, read_checkpoint

SCRIPTED: Mapping[str, type[OpponentConfig]] = {
    "random": RandomOpponent,
    "zero": ZeroOpponent,
    "heuristic": HeuristicOpponent,
}


@dataclass(frozen=True)
class Stage:
    """A saved policy, the environment that it acts in, and from which seed.

    Args:
        run: whose policy it is.
        checkpoint: the file that its parameters are from.
        frames: how many the run had collected then.
        task: what is played.
        team: its groups.
        env: with the transforms that the policy needs.
        policy: of all groups.
        exploration: how the groups that learned act, greedily or by sampling.
        episodes: how many are asked for.
        seed: of the environment; training never used it.
    """

    run: SavedRun
    checkpoint: Path
    frames: int
    task: TaskConfig
    team: TeamSpec
    env: TransformedEnv
    policy: TeamPolicy
    exploration: ExplorationType
    episodes: int
    seed: int

    @property
    def groups(self) -> list[str]:
        return [group.name for group in self.team]


def set_stage(run: SavedRun, task: TaskConfig, options: PolicyOptions, *, rendered: bool = False) -> Stage:
    """The policy that ``options`` choose of ``run``, in ``task``; the program's random state is left as it was.

    With the run's own task and default options, evaluating it gives the run's final evaluation again, bit for bit.

    Args:
        run: whose policy acts.
        task: what it acts in; the run's own, or one whose groups have the same names and observations.
        options: which checkpoint and policy, who else acts, from which seed.
        rendered: the environment can be drawn, where the task has a renderer.

    Raises:
        UserError: where there is no such checkpoint, or the policy does not fit the task.
    """
    config = run.config
    device = resolve_device(options.device)
    episodes = options.episodes or int(config["evaluation"]["episodes"])
    seed = EVALUATION_SEED + (config["seed"] if options.seed is None else options.seed)
    path = checkpoint_path(run, options.checkpoint)
    build = task.build_rendered if rendered else task.build_evaluation
    base_env = build(seed=seed, device=device, episodes=episodes)
    try:
        team = TeamSpec.from_env(base_env)
        task.check_interests([group.name for group in team])
        content = read_checkpoint(path, algorithm=config["algorithm"], keys=("frames", "parts"))
        policy = _policy(run, content["parts"]["policy"], team, task, options).to(device)
        env = with_transforms(base_env, team, policy)
    except BaseException:
        _close(base_env)
        raise
    exploration = ExplorationType.RANDOM if options.policy == "sampled" else ExplorationType.DETERMINISTIC
    return Stage(run, path, content["frames"], task, team, env, policy, exploration, episodes, seed)


def checkpoint_path(run: SavedRun, checkpoint: str) -> Path:
    """The file that ``last``, ``best``, ``best_GROUP`` or a number of frames means.

    Raises:
        UserError: where there is none.
    """
    directory = run.directory / "checkpoints"
    last = latest_checkpoint(directory)
    named = {path.stem.removeprefix("frames_"): path for path in checkpoint_paths(directory)}
    named |= {path.stem: path for path in sorted(directory.glob("best*.pt"))}
    if checkpoint != LAST and checkpoint not in named:
        raise UserError(f"checkpoint={checkpoint}: {run.directory} has {LAST}, {', '.join(named)}; choose one of them")
    return named.get(checkpoint, last)


def _policy(
    run: SavedRun, saved: Mapping[str, Tensor], team: TeamSpec, task: TaskConfig, options: PolicyOptions
) -> TeamPolicy:
    saved_groups = list(read_data(run.directory / ACTORS_FILE))
    unknown = [name for name in options.opponents if name not in [group.name for group in team]]
    if unknown:
        names = ", ".join(group.name for group in team)
        raise UserError(f"opponents.{unknown[0]}: no such group; {task.name} has {names}")
    actors: dict[str, GroupActor] = {}
    with torch.random.fork_rng():
        for group in team:
            instead = options.opponents.get(group.name)
            if instead is None and options.policy in SCRIPTED and group.name not in run.opponents:
                instead = SCRIPTED[options.policy]()
            if instead is not None:
                actors[group.name] = build_opponent(instead, group, team, task)
            else:
                actors[group.name] = _saved_actor(run, saved, saved_groups, group, team, task)
        share_channel(actors)
    return TeamPolicy(actors)


def _saved_actor(
    run: SavedRun,
    saved: Mapping[str, Tensor],
    saved_groups: list[str],
    group: GroupSpec,
    team: TeamSpec,
    task: TaskConfig,
) -> GroupActor:
    if group.name not in saved_groups:
        raise UserError(
            f"{run.directory} has no policy for group {group.name!r} of {task.name}, it has {', '.join(saved_groups)}; "
            f"give opponents.{group.name}=, or another task"
        )
    actor = run.actor_config(group.name).build(group, team)
    assert isinstance(actor, nn.Module)
    state = state_of_group(saved, saved_groups, group.name)
    try:
        check_fits(actor.state_dict(), state, run.directory, group)
    except UserError as error:
        features = _features_seen(run, group.name)
        if features in (None, group.observation_dim):
            raise
        raise UserError(
            f"{run.directory} does not fit group {group.name!r}: {task.name} observes {group.observation_dim} features "
            f"per agent, this policy reads {features}; choose a task whose agents observe as many"
        ) from error
    actor.load_state_dict(state)
    return actor


def _features_seen(run: SavedRun, group: str) -> int | None:
    """The features of an observation in the run's own task; ``None`` where that names a user's own code."""
    if code_of(run.task):
        return None
    env = run.task.build(seed=0, device="cpu", n_envs=1)
    try:
        return TeamSpec.from_env(env)[group].observation_dim
    finally:
        _close(env)


def _close(env: EnvBase) -> None:
    if not env.is_closed:
        env.close()
