"""A population of learners: from a configuration to a finished directory."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ctde_kit.distributed import Exchange, Meetings, Population, Processes, ProcessLostError, RayProcesses, rank_seed
from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.commands.loading import check_resumes, read_population
from ctde_kit.recipes.commands.population_result import conclude
from ctde_kit.recipes.commands.run_guard import RunExistsError, guarded_run
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.recipes.configs.data import no_run
from ctde_kit.recipes.configs.distributed_options import PopulationMember, RayDistribution
from ctde_kit.recipes.configs.own_code import check_trust
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.devices import check_computes_on_cpu
from ctde_kit.recipes.wiring.logger_checks import check_loggers
from ctde_kit.recipes.wiring.membership import Member
from ctde_kit.recipes.wiring.population_directory import POPULATION_FILE, PopulationDirectory, Version
from ctde_kit.training.reporting.progress import ProgressReport, reporting_progress
from ctde_kit.training.run_lock import RunInUseError, sole_writer
from ctde_kit.training.stop_signals import StopSignals

logger = logging.getLogger("ctde_kit")
# Seconds: Ray ends the processes of a machine about three minutes after the link to it was cut; till then they have
# their files.
FREE_WITHIN = 300.0
SAY_AFTER = 5.0

OpenProcesses = Callable[[], Processes]


def start_population(config: RecipeConfig, path: str | Path, *, processes: OpenProcesses | None = None) -> JsonObject:
    """Train the members of a population in the new directory ``path``, and return the population's summary.

    Args:
        config: of the recipe, with ``distributed=RayDistribution(members=...)``.
        path: the directory, which holds no population yet; each member has a run directory ``members/RANK`` in it.
        processes: where members are hosted; ``None`` for a Ray cluster as the configuration has it.

    Raises:
        UserError: where ``path`` holds a population already or is in use, for mistakes in the configuration, and where
            more members are lost than ``restarts`` allows.

    >>> import contextlib, io, tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.distributed import LocalProcesses
    >>> from ctde_kit.recipes import COMAConfig, MatrixTask, RayDistribution, SyncConfig, start_population
    >>> exchange = SyncConfig(what="best_critic", every=12)
    >>> config = COMAConfig(
    ...     task=MatrixTask(n_envs=2), distributed=RayDistribution(members=2, sync=exchange), frames_per_batch=12,
    ...     total_frames=36,
    ... )
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     summary = start_population(config, Path(tempfile.mkdtemp()), processes=LocalProcesses)
    >>> summary["exchanges"], len(summary["members"])
    (2, 2)
    """
    path = Path(path)
    check_loggers(config.logger)
    check_computes_on_cpu(config.device)
    directory = PopulationDirectory(path)
    with guarded_run(config, path) as stop:
        if directory.has_version or (path / "config.yaml").exists():
            raise RunExistsError.of(path)
        directory.write_config(config)
        try:
            return _Driver(config, directory, processes, stop).train()
        except BaseException:
            if not directory.has_version:
                directory.clear()
            raise


def resume_population(
    config: RecipeConfig, path: str | Path, *, trust: bool = False, processes: OpenProcesses | None = None
) -> JsonObject:
    """Go on with the population in ``path``, from the last checkpoint that all members have.

    Args:
        config: that ``start_population`` was given; total_frames, device, compile, threads, logger and
            distributed.address may be other ones.
        path: of its directory.
        trust: whether a user's own code that the configuration names may be imported and run.
        processes: where members are hosted; ``None`` for a Ray cluster as the configuration has it.

    Raises:
        UserError: where ``path`` is in use, holds no checkpoint of all members, or that of another layout or
            configuration, or where nothing is left to do.

    >>> import contextlib, io, tempfile
    >>> from dataclasses import replace
    >>> from pathlib import Path
    >>> from ctde_kit.distributed import LocalProcesses
    >>> from ctde_kit.recipes import COMAConfig, MatrixTask, RayDistribution, resume_population, start_population
    >>> config = COMAConfig(
    ...     task=MatrixTask(n_envs=2), distributed=RayDistribution(members=2), frames_per_batch=12, total_frames=12
    ... )
    >>> path = Path(tempfile.mkdtemp())
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     first = start_population(config, path, processes=LocalProcesses)
    ...     summary = resume_population(replace(config, total_frames=24), path, processes=LocalProcesses)
    >>> [member["frames"] for member in summary["members"]]
    [24, 24]
    """
    path = Path(path)
    check_loggers(config.logger)
    directory = PopulationDirectory(path)
    if not directory.exists:
        raise no_run(path, f"path={str(path)!r}", file=POPULATION_FILE)
    check_resumes(config, read_population(directory), path, "the configuration that start_population was given")
    check_trust(config, directory.code, path / POPULATION_FILE, trust=trust)
    with guarded_run(config, path) as stop:
        version = directory.version(config.distributed.n_members)
        if version is None:
            raise UserError(f"{path}: its members were stopped before their first checkpoint; start them again")
        if directory.summary.exists() and config.total_frames <= version.frames:
            raise UserError(
                f"total_frames={config.total_frames}: {path} has {version.frames} frames already; ask for more"
            )
        print(f"going on from {version.frames} frames, to {config.total_frames}")
        directory.write_config(config, version.frames)
        return _Driver(config, directory, processes, stop).train()


def go_on_with_population(config: RecipeConfig, path: Path) -> None:
    """Go on with a study's population in ``path``, or start it anew where it has no checkpoint of all members.

    One that has ended is left as it is.

    Raises:
        UserError: where ``path`` holds a population with another configuration.
    """
    directory = PopulationDirectory(path)
    if config != read_population(directory):
        raise UserError(f"{path} holds a population with other options: choose another hydra.sweep.dir")
    if directory.summary.exists():
        print(f"run directory: {path} (ended before)")
    elif directory.has_version:
        resume_population(config, path, trust=True)  # the code is what this command line names, too
    else:
        start_population(config, path)


@dataclass
class _Driver:
    """Trains the members of one directory, again from their last common checkpoint where one is lost."""

    config: RecipeConfig
    directory: PopulationDirectory
    processes: OpenProcesses | None
    stop: StopSignals
    reported: int = 0

    def train(self) -> JsonObject:
        where = self.config.distributed
        assert isinstance(where, RayDistribution)
        began = time.monotonic()
        print(f"run directory: {self.directory.path.absolute()}", flush=True)
        form, frames = "bar" if sys.stderr.isatty() else "lines", self._frames()
        with reporting_progress(form, self.config.total_frames, frames) as report:
            summaries = self._attempts(where, report)
        return conclude(self.config, self.directory, summaries, time.monotonic() - began)

    def _frames(self) -> int:
        """Of each member, at the last checkpoint that all have."""
        version = self.directory.version(self.config.distributed.n_members)
        return 0 if version is None else version.frames

    def _attempts(self, where: RayDistribution, report: ProgressReport) -> dict[int, JsonObject]:
        """Train to the end, as often as it takes and is allowed; returns the members' summaries by rank."""
        restarts = 0
        while True:
            try:
                return self._attempt(where, report)
            except ProcessLostError as loss:
                self._after_loss(loss, where, restarts)
                restarts += 1

    def _attempt(self, where: RayDistribution, report: ProgressReport) -> dict[int, JsonObject]:
        """Train from the last common checkpoint to the end; returns the members' summaries by rank."""
        version = self.directory.version(where.members)
        held = self.directory.drop_exchanges(version)
        ended, train = dict[int, JsonObject](), list[Callable[[Meetings], JsonObject] | None]()
        for rank in range(where.members):
            summary = self.directory.member_summary(rank)
            if version is not None and summary is not None and self._is_done(summary):
                ended[rank] = summary
                train.append(None)
                continue
            self._wait_until_free(rank, max(where.timeout, FREE_WITHIN))
            self.directory.go_back(version, rank)
            path, goes_on = self.directory.member(rank), version is not None
            train.append(partial(train_member, self._member_config(where, rank), self.config.seed, path, goes_on))
        processes = self.processes() if self.processes else RayProcesses(where.address, timeout=where.timeout)
        try:
            population = Population(
                train,
                processes,
                held=held,
                on_exchange=self._exchanged,
                on_saved=lambda frames: self.directory.write_version(Version(frames, where.members)),
                on_wait=partial(self._wait, report),
            )
            return ended | population.run()
        finally:
            processes.close()

    def _is_done(self, summary: JsonObject) -> bool:
        return "ended_by" in summary or summary["frames"] >= self.config.total_frames

    def _member_config(self, where: RayDistribution, rank: int) -> RecipeConfig:
        # They share the cores of this machine, or of those that are like it.
        threads = self.config.threads or max(torch.get_num_threads() // where.members, 1)
        member = PopulationMember(members=where.members, sync=where.sync)
        return replace(self.config, seed=rank_seed(self.config.seed, rank), threads=threads, distributed=member)

    def _wait_until_free(self, rank: int, seconds: float) -> None:
        """Wait for the process of a member that was just ended, maybe behind a cut link, to be gone."""
        began, has_said = time.monotonic(), False
        while True:
            try:
                with sole_writer(self.directory.member(rank)):
                    return
            except RunInUseError as error:
                waited = time.monotonic() - began
                if waited > seconds:
                    raise
                if waited > SAY_AFTER and not has_said:
                    logger.warning("%s; waiting for its end, at most %g s", str(error).rpartition(": ")[0], seconds)
                    has_said = True
            time.sleep(0.1)

    def _exchanged(self, exchange: Exchange) -> None:
        self.directory.write_exchange(exchange)

    def _wait(self, report: ProgressReport) -> None:
        if self.stop.at_boundary():
            raise KeyboardInterrupt
        frames = min(self.directory.frames(rank) for rank in range(self.config.distributed.n_members))
        if frames > self.reported:
            report(frames, f"each of {self.config.distributed.n_members} members")
        self.reported = frames

    def _after_loss(self, loss: ProcessLostError, where: RayDistribution, restarts: int) -> None:
        """Say that all members go on from their last common checkpoint, where another restart is allowed."""
        if restarts == where.restarts:
            raise UserError(
                f"{loss}; distributed.restarts={where.restarts} allows no further start: see what ends it, and go on "
                f"with ctde-{self.config.algorithm} resume={self.directory.path.absolute()}"
            ) from loss
        version = self.directory.version(where.members)
        place = "start again" if version is None else f"go on from {version.frames} frames"
        logger.warning("%s: all members %s (restart %d of %d)", loss, place, restarts + 1, where.restarts)


def train_member(config: RecipeConfig, seed: int, path: Path, goes_on: bool, meetings: Meetings) -> JsonObject:
    """Train one member, in its own process; returns its summary.

    Args:
        config: of the member.
        seed: of the population.
        path: of the member's run directory.
        goes_on: from its last checkpoint.
        meetings: where it meets the others.
    """
    where = config.distributed
    assert isinstance(where, PopulationMember)
    member = Member(config, seed, where.sync, meetings)
    return resume(config, path, trust=True, member=member) if goes_on else start(config, path, member=member)
