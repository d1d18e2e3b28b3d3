"""A queue of runs, each in a process of its own, over the cores of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ctde_kit.recipes.studies.benchmark.plan import PlannedRun

# Seconds between looks at the processes.
POLL = 0.2
# Seconds that a process gets to stop: to end an iteration and write a checkpoint.
GRACE = 40.0
LAST_LINES = 5


@dataclass
class Job:
    """A run in progress.

    Args:
        run: what is run.
        process: the run's process, which leads a process group of its own.
    """

    run: PlannedRun
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        self.process.terminate()

    def kill(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class JobQueue:
    """Starts the runs of a benchmark in processes, a fixed number at a time, until all have ended.

    Args:
        jobs: how many runs are in progress at a time.
        threads: CPU threads of each process.
        command: the program that a run's ``ctde`` arguments are given to.
        watch: called at every look at the processes, with the runs in progress.
        failed: the runs that failed.
    """

    jobs: int
    threads: int
    command: Sequence[str] = (sys.executable, "-m", "ctde_kit.recipes.commands.main")
    watch: Callable[[list[PlannedRun]], None] = lambda runs: None
    failed: list[PlannedRun] = field(default_factory=list)
    _running: list[Job] = field(default_factory=list)

    def work(self, runs: Sequence[PlannedRun], deadline: float | None = None) -> bool:
        """Run all of ``runs``; one that fails is added to ``failed``, and the others go on.

        If this call ends early (at the deadline, by an exception or a signal), each process is told to stop; it writes
        a checkpoint first.

        Args:
            runs: are started in this order.
            deadline: a time on the clock of ``time.monotonic``, at which the runs in progress are stopped.

        Returns:
            Whether all runs were done before the deadline.
        """
        waiting = list(runs)
        try:
            with _signals_as_interrupts():
                while waiting or self._running:
                    if deadline is not None and time.monotonic() >= deadline:
                        return False
                    while waiting and len(self._running) < self.jobs:
                        self._running.append(self._start(waiting.pop(0)))
                    self._collect()
                    self.watch([job.run for job in self._running])
                    time.sleep(POLL)
            return True
        finally:
            self._stop()

    def _start(self, run: PlannedRun) -> Job:
        run.log.parent.mkdir(parents=True, exist_ok=True)
        run.failure.unlink(missing_ok=True)
        with open(run.log, "ab") as log:
            log.write(f"$ ctde {' '.join(run.arguments)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*self.command, *run.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **thread_limits(self.threads)},
                # In a session of its own the run does not get the terminal's Ctrl-C; this process does, and stops it.
                start_new_session=True,
            )
        return Job(run, process)

    def _collect(self) -> None:
        for job in [job for job in self._running if job.process.poll() is not None]:
            self._running.remove(job)
            if job.process.returncode != 0:
                self._note_failure(job)

    def _note_failure(self, job: Job) -> None:
        code = job.process.returncode
        how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
        lines = [line for line in _text(job.run.log).splitlines() if line.strip() and not line.startswith("$ ")]
        job.run.failure.write_text("\n".join([how, *lines[-LAST_LINES:]]) + "\n")
        self.failed.append(job.run)

    def _stop(self) -> None:
        for job in self._running:
            job.stop()
        until = time.monotonic() + GRACE
        try:
            while any(job.process.poll() is None for job in self._running) and time.monotonic() < until:
                time.sleep(POLL)
        finally:
            for job in self._running:
                job.kill()
            self._running.clear()


def thread_limits(threads: int) -> Mapping[str, str]:
    """Environment variables that limit a process to this number of CPU threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
    return dict.fromkeys(names, str(threads))


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Inside the block SIGINT and SIGTERM raise KeyboardInterrupt, so that ``finally`` clauses run.

    A shell lets programs that it starts in the background ignore SIGINT; a run heeds it nonetheless, and so does this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with contextlib.ExitStack() as restoring:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, interrupt)
            restoring.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
        yield


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
