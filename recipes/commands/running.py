"""One run of a recipe: from a configuration to a finished run directory."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ctde_kit.collectors import RolloutCollector
from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.modules import TeamPolicy
from ctde_kit.recipes.commands.loading import check_resumes, read_config
from ctde_kit.recipes.commands.recording import recording
from ctde_kit.recipes.commands.run_guard import RunExistsError, guarded_run
from ctde_kit.recipes.configs.data import no_run, to_data, write_data
from ctde_kit.recipes.configs.distributed_options import OneProcess, PopulationMember
from ctde_kit.recipes.configs.own_callbacks import imported
from ctde_kit.recipes.configs.own_code import code_of, recorded, with_changes
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.devices import resolve_device
from ctde_kit.recipes.wiring.logger_checks import check_loggers
from ctde_kit.recipes.wiring.membership import EXCHANGE, Member, run_name
from ctde_kit.recipes.wiring.policies import actor_configs
from ctde_kit.recipes.wiring.population_directory import POPULATION_FILE
from ctde_kit.recipes.wiring.run_evaluations import absolute_metric, run_evaluations
from ctde_kit.recipes.wiring.run_facts import Session
from ctde_kit.recipes.wiring.saved_runs import ACTORS_FILE, CODE_FILE, SavedRun, as_saved
from ctde_kit.specs import TeamSpec
from ctde_kit.training import (
    Callbacks,
    Parts,
    Run,
    RunDirectory,
    checkpoint_paths,
    latest_checkpoint,
    load_parts,
    read_checkpoint,
    run,
)
from ctde_kit.training.checkpoint import ON_ITERATION
from ctde_kit.training.reporting import shown_returns
from ctde_kit.training.stop_signals import StopSignals


def start(config: RecipeConfig, path: str | Path, *, member: Member | None = None) -> JsonObject:
    """Train ``config`` in the new run directory ``path``, as the command line does, and return the run's summary.

    It evaluates, and writes metrics, checkpoints and curves. Where it ends before its first checkpoint nothing is left
    that keeps the same command from working again.

    Args:
        config: of the recipe.
        path: the run directory, which holds no run yet.
        member: what the run does as a member of a population; ``None``: it is none.

    Raises:
        UserError: where ``path`` holds a run already or is in use, and for mistakes in the configuration.
        ctde_kit.errors.RunStopped: a ``KeyboardInterrupt``, where Ctrl-C or a signal ended it; it says how to go on.

    Beside other programs, set ``GOMP_SPINCOUNT=10000`` in the shell before Python starts, as the command does.

    >>> import contextlib, io, tempfile
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig, start
    >>> config = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=10, total_frames=10)
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     summary = start(config, tempfile.mkdtemp())
    >>> summary["algorithm"], summary["frames"]
    ('qmix', 10)
    """
    path = Path(path)
    _check_config("start", config)
    check_loggers(config.logger)
    callbacks = _callbacks(config, member)
    with guarded_run(config, path) as stop, ExitStack() as closing:
        if checkpoint_paths(path / "checkpoints") or (path / POPULATION_FILE).exists():
            raise RunExistsError.of(path)
        parts = config.build()
        closing.callback(_release, parts)
        # A run that was killed before its first checkpoint may have left rows.
        RunDirectory(path).clear()
        directory = RunDirectory(path)
        try:
            _write_actors(config, parts, directory)
            code = recorded(code_of(config))
            if code:
                write_data(code, directory.path / CODE_FILE)
            write_data(to_data(config), directory.path / "config.yaml")
            return _train(config, parts, callbacks, directory, 0.0, stop, closing, member)
        except BaseException:
            if not checkpoint_paths(directory.checkpoints):
                directory.clear()
            raise


def _check_config(function: str, config: object) -> None:
    if not isinstance(config, RecipeConfig):
        raise UserError(
            f"{function}: config={config!r}: expected a recipe's configuration, such as MAPPOConfig(total_frames=600)"
        )


def _callbacks(config: RecipeConfig, member: Member | None) -> Callbacks:
    return Callbacks({**imported(config.callbacks), **(member.callbacks if member is not None else {})})


def resume(config: RecipeConfig, path: str | Path, *, trust: bool = False, member: Member | None = None) -> JsonObject:
    """Go on with the run in ``path``; rows of ``metrics.csv`` past its checkpoint are dropped.

    Args:
        config: of the run, as ``load(path).config`` has it; total_frames, device, compile, threads, logger and
            distributed.address may be other ones.
        path: of its directory.
        trust: whether a user's own code that the run names may be imported and run.
        member: what the run does as a member of a population; ``None``: it is none, or goes on alone.

    Raises:
        UserError: where ``path`` is in use or holds no whole checkpoint, or the run of another configuration, where
            nothing is left to do, and where rows before the checkpoint are missing.

    >>> import contextlib, io, tempfile
    >>> from dataclasses import replace
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig, resume, start
    >>> config, path = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=10, total_frames=10), tempfile.mkdtemp()
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     first = start(config, path)
    ...     longer = resume(replace(config, total_frames=20), path)
    >>> first["frames"], longer["frames"]
    (10, 20)
    """
    path = Path(path)
    _check_config("resume", config)
    if not (path / "config.yaml").is_file():
        raise no_run(path, f"path={str(path)!r}")
    check_resumes(config, read_config(path), path, "load(path).config")
    saved = SavedRun(path)
    saved.check_trust(config, trust=trust)
    check_loggers(config.logger)
    callbacks = _callbacks(config, member)
    if member is None and isinstance(config.distributed, PopulationMember):
        # It goes on alone, without the other members.
        config = replace(config, distributed=OneProcess())
    with guarded_run(config, path) as stop, ExitStack() as closing:
        directory = RunDirectory(path)
        content = read_checkpoint(latest_checkpoint(directory.checkpoints), algorithm=config.algorithm)
        finished = (path / "summary.json").exists()
        if finished and config.total_frames <= content["frames"]:
            raise UserError(
                f"total_frames={config.total_frames}: {path} has {content['frames']} frames already; ask for more"
            )
        if member is None:
            content.get(ON_ITERATION, {}).pop(EXCHANGE, None)
        parts = as_saved(config, saved).build()
        closing.callback(_release, parts)
        frames = load_parts(content, parts, on_iteration=callbacks)
        # The schedule may be another one now: with more total_frames the learning rate falls more slowly.
        parts.anneal(frames)
        seconds = directory.read_rows(frames, content["rows"].tolist())
        print(f"going on from {frames} frames, to {config.total_frames}")
        code = with_changes(saved.code, code_of(config), frames)
        if code != saved.code:
            write_data(code, path / CODE_FILE)
        write_data(to_data(config), directory.path / "config.yaml")
        return _train(config, parts, callbacks, directory, seconds, stop, closing, member)


def _release(parts: Parts) -> None:
    """End the processes of other collectors and learners, however the run ends."""
    if not isinstance(parts.collector, RolloutCollector):
        parts.collector.shutdown()


def go_on(config: RecipeConfig, path: Path) -> None:
    """Go on with a study's run in ``path``: resume it, or start it anew where it has no checkpoint.

    A run that has ended is left as it is.

    Raises:
        UserError: where ``path`` holds a run with another configuration.
    """
    if config != read_config(path):
        raise UserError(f"{path} holds a run with other options: choose another hydra.sweep.dir")
    if (path / "summary.json").exists():
        print(f"run directory: {path} (ended before)")
    elif not checkpoint_paths(path / "checkpoints"):
        start(config, path)
    else:
        resume(config, path, trust=True)  # the code is what this command line names, too


def _write_actors(config: RecipeConfig, parts: Parts, directory: RunDirectory) -> None:
    """Write how each group's actor is built, opponents from other runs included, since those runs may be moved."""
    team = TeamSpec.from_env(parts.collector.env)
    actors = {name: to_data(actor) for name, actor in actor_configs(config, team).items()}
    write_data(actors, directory.path / ACTORS_FILE)


def _policy(parts: Parts) -> TeamPolicy:
    assert isinstance(parts.policy, TeamPolicy)
    return parts.policy


def _train(
    config: RecipeConfig,
    parts: Parts,
    callbacks: Callbacks,
    directory: RunDirectory,
    seconds: float,
    stop: StopSignals,
    closing: ExitStack,
    member: Member | None,
) -> JsonObject:
    """Train, evaluate and record; ``closing`` then closes the envs that evaluate and record."""
    task, device = config.task, resolve_device(config.device)
    team = TeamSpec.from_env(parts.collector.env)
    groups = [group.name for group in team]
    evaluations = run_evaluations(config, team, _policy(parts), directory, device)
    closing.callback(evaluations.env.close)
    evaluations.go_on(parts.collector.frames)
    record = recording(config, parts, team, directory, evaluations.seed, device, closing)
    session = Session(config, parts, directory)
    loggers = config.logger.build(directory.path, run_name(config, directory.path))
    settings = Run(
        algorithm=config.algorithm,
        task=task.name,
        seed=config.seed,
        total_frames=config.total_frames,
        directory=directory,
        groups=groups,
        evaluate=evaluations,
        evaluate_every_frames=config.evaluation.every_frames,
        checkpoint_every_frames=config.checkpoint.every_frames,
        loggers=[*loggers],
        started_seconds=seconds,
        progress="bar" if sys.stderr.isatty() else "lines",
        stop=stop,
        before_checkpoint=evaluations.keep,
        # Where a callback ends this run, the other members go on without it.
        after_checkpoint=lambda frames: None if member is None or callbacks.ended_by else member.saved(frames),
        conclude=lambda: {
            **(member.conclude(parts) if member is not None else {}),
            **(absolute_metric(config, team, evaluations, device) if config.evaluation.absolute else {}),
            **({"ended_by": callbacks.ended_by} if callbacks.ended_by else {}),
        },
    )
    _announce(config, directory)
    try:
        summary = run(parts, settings, on_iteration=callbacks)
    finally:
        for logger in loggers:
            logger.close()
    if record is not None:
        record()
    session.end()
    _print_result(summary, directory)
    return summary


def _announce(config: RecipeConfig, directory: RunDirectory) -> None:
    """Print where the run is, and how many frames it will collect where that is more than what was asked for."""
    collected = -(-config.total_frames // config.frames_per_batch) * config.frames_per_batch
    if collected != config.total_frames:
        multiple = f"the next multiple of frames_per_batch={config.frames_per_batch}"
        print(f"total_frames={config.total_frames}: {collected} frames will be collected, {multiple}")
    print(f"run directory: {directory.path.absolute()}", flush=True)


def _print_result(summary: JsonObject, directory: RunDirectory) -> None:
    returns = [f"{name} {summary[name]:.3f}" for name in shown_returns(summary)]
    print(f"{summary['algorithm']} on {summary['task']}, seed {summary['seed']}: {', '.join(returns)}")
    print(
        f"  after {summary['frames']} frames in {summary['seconds']:.0f} s, {summary['eval/episodes']} greedy episodes"
    )
    if "ended_by" in summary:
        print(f"  ended by the callback {summary['ended_by']}, before total_frames")
    for path in sorted([*directory.plots.glob("*.png"), *directory.videos.glob("*.gif")]):
        print(f"  {path.parent.name.removesuffix('s')}: {path}")
    print(f"  everything: {directory.path}")
