"""Cross-play: every policy given for one group against every policy given for the other, as a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.commands.application import compose_and_run
from ctde_kit.recipes.commands.arguments import HELP, check_arguments
from ctde_kit.recipes.commands.code_errors import code_errors
from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.own_tasks import with_own_task
from ctde_kit.recipes.commands.short_forms import expand_side, names_group, with_whole_numbers
from ctde_kit.recipes.configs.command_options import CrossPlayConfig
from ctde_kit.recipes.configs.data import to_data
from ctde_kit.recipes.configs.opponents import OpponentConfig, RunOpponent
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.wiring.evaluating import EVALUATION_SEED
from ctde_kit.recipes.wiring.saved_runs import SavedRun

if TYPE_CHECKING:
    from ctde_kit import GroupSpec, TeamSpec
    from ctde_kit.training import CrossPlay

PROGRAM = "ctde cross-play"
OPTIONS = ("task", "episodes", "seed", "device", "trust")


def cross_play(arguments: list[str]) -> None:
    """Do what the command line of ``ctde cross-play`` says."""
    options, arguments = Options.of(CrossPlayConfig, "cross_play"), with_own_task(arguments)
    arguments = [argument if names_group(argument, OPTIONS) else with_whole_numbers(argument) for argument in arguments]
    check_arguments(PROGRAM, options, [argument for argument in arguments if not names_group(argument, OPTIONS)])
    if not any(names_group(argument, OPTIONS) or argument in HELP for argument in arguments):
        raise UserError(
            f"expected policies for two groups, as in {PROGRAM} adversary=[RUN_DIR,random] agent=random; `{PROGRAM} "
            "--help` shows examples"
        )
    overrides = [override for argument in arguments for override in expand_side(argument, OPTIONS)]
    compose_and_run(PROGRAM, "cross_play", options, overrides, _start)


def play(cfg: CrossPlayConfig) -> CrossPlay:
    """The table of ``cfg``'s policies, greedy, on evaluation seeds that training never used.

    Raises:
        UserError: for unknown groups, runs of several tasks, and policies that do not fit.
    """
    from tensordict.nn import TensorDictModuleBase

    from ctde_kit.recipes.wiring.devices import resolve_device
    from ctde_kit.recipes.wiring.policies import build_opponent
    from ctde_kit.recipes.wiring.transforms import with_transforms

    task = _played_task(cfg)
    device = resolve_device(cfg.device)
    seed = EVALUATION_SEED + cfg.seed
    base_env = task.build(seed=seed, device=device, n_envs=task.evaluation_envs(cfg.episodes))
    team = ck.TeamSpec.from_env(base_env)
    try:
        _check_groups(cfg, team, task)

        def player(policy: OpponentConfig, group: GroupSpec) -> TensorDictModuleBase:
            actor = build_opponent(policy, group, team, task)
            assert isinstance(actor, TensorDictModuleBase)
            return actor.to(device)

        sides = {
            group.name: {
                label: player(policy, group) for label, policy in _labelled(cfg.policies[group.name].values()).items()
            }
            for group in team
        }
        return ck.training.cross_play(
            sides,
            lambda pairing: with_transforms(base_env, team, ck.TeamPolicy(dict(pairing))),  # pyright: ignore[reportArgumentType]  # by group
            episodes=cfg.episodes,
            seed=seed,
        )
    finally:
        base_env.close()


def write(table: CrossPlay, cfg: CrossPlayConfig, directory: Path) -> list[Path]:
    """Write ``cross_play.csv``, ``.json`` (the same rows, and who the policies are) and ``.png``; returns the paths."""
    task = _played_task(cfg)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "cross_play.json"
    policies = {
        group: {label: _described(policy) for label, policy in _labelled(named.values()).items()}
        for group, named in cfg.policies.items()
    }
    content = {
        "task": task.name,
        "max_steps": task.episode_steps,
        "continuous_actions": task.continuous,
        "params": getattr(task, "params", {}),
        "seed": cfg.seed,
        "policies": policies,
        "pairings": table.records(),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    title = f"{task.name}, {table.records()[0]['episodes']} greedy episodes per pairing"
    return [
        table.write_csv(directory / "cross_play.csv"),
        path,
        ck.training.reporting.plot_cross_play(table, directory / "cross_play.png", title),
    ]


def _played_task(cfg: CrossPlayConfig) -> TaskConfig:
    return (cfg.task or _common_task(cfg)).with_actions(continuous=None)


def _common_task(cfg: CrossPlayConfig) -> TaskConfig:
    """The task of all runs; ``n_envs`` and the like may differ."""
    runs = [policy for named in cfg.policies.values() for policy in named.values() if isinstance(policy, RunOpponent)]
    if not runs:
        raise UserError("task: none of these policies is a run, so the task is not known; give it, task=NAME")
    saved = [SavedRun(Path(run.directory)) for run in runs]
    saved[0].check_trust(saved[0].task, trust=cfg.trust)
    options = [_options(run) for run in saved]
    for run, theirs in zip(saved, options, strict=True):
        for name, ours in options[0].items():
            if ours != theirs.get(name):
                raise UserError(
                    f"{run.directory} has task.{name}={theirs.get(name)}, {saved[0].directory} has {ours}; give the "
                    "task to be played, task=NAME"
                )
    return saved[0].task


def _options(run: SavedRun) -> JsonObject:
    """The options in which runs must agree, so that their policies can play each other."""
    task = run.task
    return run.environment | {name: getattr(task, name, None) for name in ("max_steps", "continuous_actions", "params")}


def _check_groups(cfg: CrossPlayConfig, team: TeamSpec, task: TaskConfig) -> None:
    names = [group.name for group in team]
    if len(names) != 2:
        raise UserError(f"cross-play is between two groups, {task.name} has {', '.join(names)}; choose another task")
    unknown = [name for name in cfg.policies if name not in names]
    if unknown:
        raise UserError(
            f"{unknown[0]}: neither a group of {task.name} ({', '.join(names)}) nor one of {', '.join(OPTIONS)}"
        )
    missing = [name for name in names if not cfg.policies.get(name)]
    if missing:
        raise UserError(f"{missing[0]}: no policy is given; name one or more, such as {missing[0]}=[RUN_DIR,random]")


def _labelled(policies: Iterable[OpponentConfig]) -> dict[str, OpponentConfig]:
    """Policies by label; where two share one, the second gets a number."""
    labelled: dict[str, OpponentConfig] = {}
    for policy in policies:
        label, count = policy.label, 1
        while label in labelled:
            count += 1
            label = f"{policy.label} ({count})"
        labelled[label] = policy
    return labelled


def _described(policy: OpponentConfig) -> JsonObject:
    return {name: value for name, value in to_data(policy).items() if name != "kind"}


def _start(cfg: DictConfig, path: Path) -> None:
    if (path / "cross_play.json").exists():
        raise UserError(f"{path} holds a table already: choose another hydra.run.dir")
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, CrossPlayConfig)
    with code_errors(path):
        table = play(config)
    written = write(table, config, path)
    first, second = table.labels
    for record in table.records():
        sums = [f"{group} {record[f'{group}/return_sum']:.1f}" for group in table.labels]
        print(f"{first} {record[first]}, {second} {record[second]}: return_sum {', '.join(sums)}")
    for file in written:
        print(f"  {file}")
