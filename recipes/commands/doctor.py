"""``ctde doctor``: checks a task's env, or every part of a run, against the rules of ``ctde_kit.testing``."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.arguments import close_choices, is_true
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.options import options_of
from ctde_kit.recipes.commands.task_arguments import names_task, task_of
from ctde_kit.recipes.configs.own_code import code_of
from ctde_kit.recipes.configs.tasks.lbf_task import LbfTask
from ctde_kit.recipes.configs.tasks.pettingzoo_task import PettingZooTask
from ctde_kit.recipes.configs.tasks.smax_task import SmaxTask
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.configs.tasks.vmas_task import VmasTask
from ctde_kit.recipes.wiring.saved_runs import SavedRun

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from ctde_kit import Parts, TeamSpec
    from ctde_kit.testing import Finding, Report

HELP = """\
ctde doctor: check a task's environment, or every part of a run, against the rules of multi-agent learning.

  ctde doctor task=NAME [task.KEY=VALUE ...]   its environment
  ctde doctor RUN_DIR [trust=true]             its environment, policies, losses, mixer and states; trust=true
                                               allows running your own code that the run names

It prints a table: rule, verdict, figure and why the rule matters. The exit code is 1 where a rule is broken.
"""
N_ENVS, LONGEST = 5, 200


def doctor(arguments: list[str]) -> None:
    """Print what each rule found, and exit with code 1 where one is broken.

    Raises:
        UserError: for arguments that name neither a task nor a run.
    """
    if any(argument in ("--help", "-h") for argument in arguments):
        print(HELP, end="")
        return
    width = max(100, shutil.get_terminal_size().columns)
    broken = 0
    for report in _reports(arguments):
        print(report.table(width, why=True), flush=True)
        broken += len(report.broken)
    print(f"broken: {broken}" if broken else "no rule is broken")
    if broken:
        sys.exit(1)


def _reports(arguments: list[str]) -> Iterator[Report]:
    runs = [argument for argument in arguments if not argument.startswith(("task=", "task.", "trust="))]
    if len(runs) == 1 and "=" not in runs[0].split("/")[0] and not any(map(names_task, arguments)):
        _check_no_task(runs[0])
        trust = [is_true(argument) for argument in arguments if argument not in runs]
        yield from examine_run(Path(runs[0]), trust=trust[-1:] == [True])
        return
    task = task_of("ctde doctor", arguments, "task=NAME and options of the task, or one run directory")
    if code_of(task):
        _try_out(task)
    yield examine_env(task)


def _try_out(task: TaskConfig) -> None:
    """More than an episode: what the user's own code raises then is one line, and not the finding of every rule."""
    env = task.build(seed=0, device="cpu", n_envs=N_ENVS)
    try:
        env.rollout(min(task.episode_steps or LONGEST, LONGEST) + 2, break_when_any_done=False)
    finally:
        env.close()


def _check_no_task(run: str) -> None:
    """Raise ``UserError`` where what is given in place of a run is the name of a task, or nearly."""
    known = options_of("task")
    close = [run] if run in known else close_choices(run, known) if "/" in run else []
    if close and not Path(run).exists():
        meant = " or ".join(f"task={name}" for name in close)
        raise UserError(f"{run}: there is no such directory; did you mean {meant}?")


def examine_env(task: TaskConfig) -> Report:
    """What the rules of envs say of a task's environment."""
    limit = task.max_steps if isinstance(task, (VmasTask, PettingZooTask, LbfTask, SmaxTask)) else None
    report = ck.testing.check_env(
        lambda: task.build(seed=0, device="cpu", n_envs=N_ENVS), max_steps=limit, raises=False
    )
    findings = [dataclasses.replace(finding, figure=_in_words_of(task, finding)) for finding in report.findings]
    return dataclasses.replace(report, findings=tuple(findings))


def _in_words_of(task: TaskConfig, finding: Finding) -> str:
    """A finding's figure; where a rule was skipped for want of an argument, why the command gives none."""
    if finding.verdict != "skipped":
        return finding.figure
    if finding.rule == "unseeded_copies":
        return "a run seeds every environment that it builds"
    if finding.figure.startswith("no time limit is known") and task.episode_steps is not None:
        return f"episodes end by themselves, after up to {task.episode_steps} steps; there is no time limit"
    return finding.figure.replace("give max_steps, or more steps", "give task.max_steps").replace(
        "give max_steps", "give task.max_steps"
    )


def examine_run(directory: Path, *, trust: bool = False) -> Iterator[Report]:
    """What all rules say of a run's parts as its last checkpoint left them.

    Args:
        directory: of the run.
        trust: whether a user's own code that the run names may be imported and run.

    Raises:
        UserError: where it holds no configuration or no whole checkpoint, or names code that is not trusted.
    """
    config = dataclasses.replace(read_config(directory), device="cpu", compile="off", callbacks=[])
    SavedRun(directory).check_trust(config, trust=trust)
    content = ck.training.read_checkpoint(
        ck.training.latest_checkpoint(directory / "checkpoints"), algorithm=config.algorithm
    )
    yield examine_env(config.task)
    parts = config.build()
    ck.training.load_parts(content, parts)
    try:
        yield from _examine_parts(parts, config.frames_per_batch // config.distributed.n_collectors)
    finally:
        parts.collector.env.close()


def _examine_parts(parts: Any, frames_per_batch: int) -> Iterator[Report]:
    team = ck.TeamSpec.from_env(parts.collector.env)
    fresh = _rollout(parts.collector, parts.policy, frames_per_batch)
    for name, actor in parts.policy.learners.items():
        yield ck.testing.check_policy(actor, fresh, group=name, env=parts.collector.env, raises=False)
        roots = fresh[:, 0].select(*actor.in_keys, strict=False)
        yield ck.testing.check_state(actor, lambda part, roots=roots: part(roots.clone()), raises=False)
    if isinstance(parts.update, ck.training.CriticThenActor):
        yield from _examine_counterfactual(parts, fresh)
        return
    for name, loss in parts.update.losses.items():
        yield from _examine_loss(loss, name, parts, fresh, team)
    if isinstance(parts.update, ck.training.SequentialUpdate):
        parts.buffer.extend(parts.prepare(fresh.clone()))
        yield ck.testing.check_sequential_update(parts.update, parts.buffer.items, raises=False)


def _rollout(collector: Any, policy: Any, frames_per_batch: int) -> Any:
    """A batch that is collected in this process, wherever the run collects."""
    if isinstance(collector, ck.RolloutCollector):
        return collector.rollout()
    return ck.RolloutCollector(collector.env, policy, frames_per_batch=frames_per_batch).rollout()


def _examine_counterfactual(parts: Any, fresh: TensorDictBase) -> Iterator[Report]:
    for name, actor_loss in parts.update.actor.losses.items():
        critic_loss = parts.update.critic.losses[name]

        def losses(batch: TensorDictBase, critic_loss: Any = critic_loss, actor_loss: Any = actor_loss) -> Any:
            return {**critic_loss(batch), **actor_loss(batch)}

        def whole(prepared: TensorDictBase) -> TensorDictBase:
            parts.buffer.extend(prepared)
            return parts.buffer.items

        yield ck.testing.check_counterfactual_loss(
            losses,
            fresh,
            critic=critic_loss.critic_network,
            actor=actor_loss.actor_network,
            estimator=parts.prepare,
            minibatch=whole,
            group=name,
            raises=False,
        )


def _examine_loss(loss: Any, name: str, parts: Parts, fresh: TensorDictBase, team: TeamSpec) -> Iterator[Report]:
    if isinstance(loss, ck.MAPPOLoss):

        def minibatch(prepared: TensorDictBase) -> TensorDictBase:
            buffer: Any = parts.buffer
            buffer.extend(loss.begin(prepared) if isinstance(loss, ck.objectives.HAPPOLoss) else prepared)
            return next(iter(buffer))

        yield ck.testing.check_policy_gradient_loss(
            loss, fresh, estimator=parts.prepare, minibatch=minibatch, group=name, raises=False
        )
        return
    batch = parts.prepare(fresh.clone())
    if isinstance(loss, ck.objectives.MASACLoss):
        for group in loss.critics:
            yield ck.testing.check_soft_actor_critic_loss(
                loss, batch, group=group, other_actions=loss.other_actions, raises=False
            )
        return
    mixer: Any = loss.mixer
    keys = None if mixer is None else {"reward": "reward"}
    if isinstance(loss, ck.QMixLoss):
        double = loss.target_networks is not None and not isinstance(mixer, ck.QPLEXMixer)
        for group in loss.actors:
            yield ck.testing.check_value_loss(loss, batch, group=group, keys=keys, double_q=double, raises=False)
    else:
        for group in loss.critics:
            others = None if mixer is not None else loss.other_actions
            yield ck.testing.check_deterministic_loss(
                loss, batch, group=group, keys=keys, other_actions=others, raises=False
            )
    unrestricted = isinstance(mixer, ck.QMixer) and not mixer.monotonic
    if mixer is not None and not unrestricted:
        yield ck.testing.check_mixer(mixer, _mixer_data(mixer, batch, team), raises=False)


def _mixer_data(mixer: Any, batch: TensorDictBase, team: TeamSpec) -> TensorDictBase:
    """A few steps with what the mixer reads; the doctor draws the values."""
    import torch

    data = batch.reshape(-1)[:6].clone()
    for group in team:
        for name in ("chosen_action_value", "max_action_value"):
            data.set(group.keys(name), torch.zeros(6, group.n_agents, 1))
    return data.select(*mixer.in_keys)
