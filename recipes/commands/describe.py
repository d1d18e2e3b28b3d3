"""``ctde describe task=NAME``: what an environment is, to whoever is about to train in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ctde_kit as ck
from ctde_kit.recipes.commands.arguments import text
from ctde_kit.recipes.commands.catalog import agents, sizes
from ctde_kit.recipes.commands.doctor import examine_env
from ctde_kit.recipes.commands.task_arguments import task_of
from ctde_kit.recipes.configs.checks import building
from ctde_kit.recipes.configs.opponents import RandomOpponent
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.wiring.evaluating import EVALUATION_SEED

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

    from ctde_kit import GroupSpec, TeamSpec
    from ctde_kit.training import Returns

HELP = """\
ctde describe: what an environment is: groups, sizes, masks, state, what random play earns, and what the doctor finds.

  ctde describe task=NAME [task.KEY=VALUE ...]
"""
N_ENVS = 10


def describe(arguments: list[str]) -> None:
    """Print what the environment of ``task=`` is.

    Raises:
        UserError: for arguments that name no task.
    """
    if any(argument in ("--help", "-h") for argument in arguments):
        print(HELP, end="")
        return
    for line in described(task_of("ctde describe", arguments)):
        print(line, flush=True)


def described(task: TaskConfig) -> Iterator[str]:
    """The lines that ``ctde describe`` prints of a task."""
    with building("task", task):
        env = task.build(seed=0, device="cpu", n_envs=N_ENVS)
    try:
        team = ck.TeamSpec.from_env(env)
        steps = task.episode_steps
        limit = "as long as the environment makes them" if steps is None else f"of up to {steps} steps"
        yield f"task={task.name}: episodes {limit}"
        width = max(len(group.name) for group in team)
        for group in team:
            yield f"  group {group.name:{width}}  {_group(group)}"
        yield f"  state  {f'{team.state_dim} features' if team.state_dim else 'none'}"
        yield from (f"  border  {change}" for change in border_changes(env))
        yield from _played(task, env, team)
    finally:
        env.close()
    report = examine_env(task)
    yield f"  doctor  {len(report.findings) - len(report.broken)} of {len(report.findings)} rules hold or do not apply"
    for finding in report.broken:
        yield f"    {finding.rule}: {finding.figure}"


def border_changes(env: EnvBase) -> list[str]:
    """What ``FlatVectors`` or workers change between an environment and its networks, in words."""
    from torchrl.envs import Compose, TransformedEnv

    from ctde_kit.envs.transforms import FlatVectors
    from ctde_kit.envs.workers import WorkerEnv

    if isinstance(env, WorkerEnv):
        return env.changes
    transform = env.transform if isinstance(env, TransformedEnv) else None
    parts = [*transform] if isinstance(transform, Compose) else [transform]
    return [change for part in parts if isinstance(part, FlatVectors) for change in part.changes]


def _group(group: GroupSpec) -> str:
    kind = f"{group.action.kind.replace('_', '-')} action of {sizes(group)}"
    if not group.action.discrete:
        low, high = (min(map(min, group.action.low)), max(map(max, group.action.high)))
        kind += f" from {low:g} to {high:g}"
    masks = [name for name, has in (("which actions are allowed", group.action_mask), ("who lives", group.mask)) if has]
    own_state = f", state {group.state_dim}" if group.state_dim else ""
    seen = f"{agents(group)}, observation {group.observation_dim}{own_state}"
    return f"{seen}, {kind}; masks: {' and '.join(masks) or 'none'}"


def _played(task: TaskConfig, env: EnvBase, team: TeamSpec) -> Iterator[str]:
    """What random play earns, and whether one group earns what another loses."""
    from ctde_kit.recipes.wiring.policies import build_opponent
    from ctde_kit.recipes.wiring.transforms import with_transforms

    actors: dict[str, Any] = {group.name: build_opponent(RandomOpponent(), group, team, task) for group in team}
    policy = ck.TeamPolicy(actors)
    names = [group.name for group in team]
    returns = ck.evaluate(with_transforms(env, team, policy), policy, names, episodes=2 * N_ENVS, seed=EVALUATION_SEED)
    lengths = returns.lengths
    assert lengths is not None
    earned = [f"{name} {values.mean():.3f} +- {values.mean(-1).std():.3f}" for name, values in returns.by_group.items()]
    yield f"  random play  {len(lengths)} episodes of {lengths.float().mean():.0f} steps; return {', '.join(earned)}"
    yield from _interests(task, returns)


def _interests(task: TaskConfig, returns: Returns) -> Iterator[str]:
    from ctde_kit.training.evaluations import OPPOSED

    nobody_said = task.groups_compete is None
    said = "nobody has said whether they compete" if nobody_said else f"task.groups_compete={text(task.groups_compete)}"
    opposed = False
    for (one, other), figure in returns.correlations().items():
        if math.isnan(figure):
            yield f"  interests  {one} and {other}: one of them earned the same in every episode ({said})"
            continue
        yield f"  interests  {one} and {other}: correlation of their returns {figure:.2f} ({said})"
        if figure < OPPOSED and not task.groups_compete:
            opposed = True
            yield "    what one earns the other loses: give task.groups_compete=true, and each is reported on its own"
    if nobody_said and not opposed and len(returns.by_group) > 1:
        yield "    to train, give task.groups_compete=true, or task.groups_compete=false where all are one team"
