"""The parent's side of the worker processes: start, command, wait, report, end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import selectors
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import IO, Any

import numpy as np

from ctde_kit.envs.workers.block_layout import SEED, SELECTED, Block, BlockLayout, EnvDescription
from ctde_kit.envs.workers.process import CLOSE, DONE, RENDER, RESET, STEP, STEP_ON, Failure, serve
from ctde_kit.envs.workers.pulse import Pulse
from ctde_kit.errors import UserError, WorkerError

_LOOK_AGAIN = 1.0
"""Seconds after which a silent worker's process is looked at, whatever the pipes say."""
_GRACE = 2.0
"""Seconds that a worker gets to close its environments before it is ended."""


class WorkerPool:
    """``n_envs`` environments in ``n_workers`` forked processes, in contiguous shares.

    Forking lets the factory be anything callable: a lambda, a local function, a closure over a lock.

    Raises ``UserError`` where the system cannot fork, and what the factory raises as :class:`WorkerError` (or
    ``UserError`` where it was one).

    Args:
        factory: makes an environment.
        n_envs: how many.
        n_workers: processes.
        worker_timeout: seconds after which a worker that is busy with one environment is given up.
    """

    def __init__(self, factory: Callable[[], object], n_envs: int, n_workers: int, worker_timeout: float) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise UserError("workers: expected a system that can fork processes (Linux, macOS); found none here")
        self._shares = [share.tolist() for share in np.array_split(np.arange(n_envs), n_workers)]
        self._everyone = list(range(n_workers))
        self._timeout, self._pulse = worker_timeout, Pulse(n_workers)
        self._block_file = _anonymous_file()
        self._selector = selectors.DefaultSelector()
        self._pipes: list[Connection] = []
        self._busy: list[int] = []
        self._processes: list[BaseProcess] = []
        resources = (self._processes, self._pipes, self._selector, self._block_file)
        self._end = weakref.finalize(self, _end_workers, *resources, os.getpid())
        # At exit, multiprocessing would wait for workers that ignore its SIGTERM.
        Finalize(None, self._end, exitpriority=0)
        try:
            self._start(factory)
            self.description = self._describe()
        except BaseException:
            self.close()
            raise

    def _start(self, factory: Callable[[], object]) -> None:
        context = multiprocessing.get_context("fork")
        for worker, share in enumerate(self._shares):
            pipe, childs_end = context.Pipe()
            process = context.Process(
                target=serve,
                args=(
                    childs_end,
                    factory,
                    share,
                    self._block_file,
                    partial(self._pulse.beat, worker),
                    pipe,
                    os.getpid(),
                    threading.current_thread() is threading.main_thread(),
                ),
                name=f"env-worker-{worker}",
                daemon=True,
            )
            process.start()
            childs_end.close()
            self._pipes.append(pipe)
            self._processes.append(process)
            for ready in (pipe, process.sentinel):
                self._selector.register(ready, selectors.EVENT_READ, worker)

    def _describe(self) -> EnvDescription:
        replies = self._collect(self._everyone)
        descriptions = [description for worker in sorted(replies) for description in replies[worker]]
        for env, description in enumerate(descriptions):
            if description != descriptions[0]:
                raise UserError(
                    f"factory: expected every environment alike, found env {env} with other agents, spaces or state "
                    "than env 0; make the factory return the same kind of environment at every call"
                )
        return descriptions[0]

    def attach(self, layout: BlockLayout) -> Block:
        """Make the shared block; return this process's views of it."""
        self._block_file.truncate(layout.size)
        self._block = layout.map(self._block_file)
        self._begin(pickle.dumps(layout), self._everyone)
        self.finish()
        self._block_file.close()
        return self._block

    def reset(self, selected: np.ndarray, seeds: np.ndarray) -> None:
        """Reset the ``selected`` envs (``[n_envs]`` bool), those with a ``seeds`` entry >= 0 from that seed."""
        self.settle()
        self._block[SEED][...] = seeds
        self._run(RESET, selected)

    def step(self, selected: np.ndarray) -> None:
        """Step the ``selected`` envs (``[n_envs]`` bool) with the actions in the block, written after ``settle``."""
        self._run(STEP, selected)

    def begin_step_on(self, seeds: np.ndarray) -> None:
        """Begin a step of every env, and a reset where an episode ends in it: from the env's seed if that is >= 0."""
        self._block[SEED][...] = seeds
        self._block[SELECTED][...] = True
        self._begin(STEP_ON, self._everyone)

    def finish(self) -> None:
        """Wait for what was begun."""
        self._check_open()
        with self._closing_on_errors():
            self._collect(self._busy)
            self._busy = []

    def render(self, env: int) -> np.ndarray:
        """A picture uint8 ``[H, W, 3]`` of the env ``env``, as its worker draws it.

        Raises ``UserError`` where it draws none, and for an env that is not there.
        """
        worker = next((worker for worker, share in enumerate(self._shares) if env in share), None)
        if worker is None:
            raise UserError(f"render: env {env}: expected one of the {sum(map(len, self._shares))} envs, from 0")
        self.settle()
        with self._closing_on_errors():
            self._pipes[worker].send_bytes(RENDER + str(env).encode())
            picture = self._collect([worker])[worker]
        if not isinstance(picture, np.ndarray):
            raise UserError(
                "render: the environment draws nothing; expected one that is built with render_mode='rgb_array' and "
                "has a render() that returns a picture, uint8 [H, W, 3]"
            )
        return picture

    def _run(self, command: bytes, selected: np.ndarray) -> None:
        self._block[SELECTED][...] = selected
        self._begin(command, [worker for worker, share in enumerate(self._shares) if selected[share].any()])
        self.finish()

    def settle(self) -> None:
        """Finish a step that was begun, where whoever began it was interrupted."""
        if self._busy:
            self.finish()

    def _begin(self, message: bytes, workers: list[int]) -> None:
        self._check_open()
        with self._closing_on_errors():
            self._busy = workers
            for worker in workers:
                # A dead worker is found, and named, by waiting for its reply.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._pipes[worker].send_bytes(message)

    def _check_open(self) -> None:
        if not self._end.alive:
            raise WorkerError("the worker processes have been closed; build the environment anew")

    @contextlib.contextmanager
    def _closing_on_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _collect(self, workers: Iterable[int]) -> dict[int, Any]:  # whatever a worker sent
        """What each of ``workers`` replies; raises as soon as any worker failed, or hangs."""
        replies: dict[int, Any] = {}
        waiting, silence = set(workers), None
        while waiting:
            ready = self._selector.select(_LOOK_AGAIN)
            speaking = {key.data for key, _ in ready if key.fileobj is self._pipes[key.data]}
            ended = {key.data for key, _ in ready} or {w for w in waiting if not self._processes[w].is_alive()}
            for worker in speaking or ended:
                message = self._receive(worker, worker in speaking)
                reply = None if message == DONE else pickle.loads(message)
                if isinstance(reply, Failure):
                    raise self._failure(worker, reply)
                replies[worker] = reply
                waiting.discard(worker)
            if not ready:
                silence = silence or _Silence(self._pulse, waiting)
                self._check_time(silence.seconds(waiting))
        return replies

    def _check_time(self, silent: Mapping[int, float]) -> None:
        late = [worker for worker, seconds in sorted(silent.items()) if seconds > self._timeout]
        if late:
            raise WorkerError(
                f"{self._name(late[0])} has not come back for {self._timeout:g} s from {self._pulse.doing(late[0])}; "
                "mend the environment, or give a larger worker_timeout"
            )

    def _receive(self, worker: int, speaking: bool) -> bytes:
        with contextlib.suppress(EOFError, OSError):
            # A worker that failed leaves its last words in the pipe.
            if speaking or self._pipes[worker].poll():
                return self._pipes[worker].recv_bytes()
        process = self._processes[worker]
        process.join(_GRACE)
        raise WorkerError(f"{self._name(worker)} died: {_exit(process.exitcode)}")

    def _failure(self, worker: int, failure: Failure) -> Exception:
        if failure.user_error:
            return UserError(failure.cause)
        where = "" if failure.env is None else f" of env {failure.env}"
        error = WorkerError(f"{self._name(worker)} failed in {failure.doing}{where}: {failure.cause}")
        error.add_note(failure.trace)
        return error

    def _name(self, worker: int) -> str:
        first, last = self._shares[worker][0], self._shares[worker][-1]
        return f"worker {worker} (env {first})" if first == last else f"worker {worker} (envs {first}-{last})"

    def close(self) -> None:
        """End every process; may be called again."""
        self._end()


class _Silence:
    """For how many seconds workers have given no sign of life."""

    def __init__(self, pulse: Pulse, workers: Iterable[int]) -> None:
        self._pulse, self._looked = pulse, time.monotonic()
        self._beats, self._seconds = pulse.beats([*workers]), dict.fromkeys(workers, 0.0)

    def seconds(self, workers: Iterable[int]) -> dict[int, float]:
        """By worker, up to now. Where all processes were stopped for a while (Ctrl-Z), that is not counted."""
        beats, now = self._pulse.beats([*workers]), time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * _LOOK_AGAIN), now
        self._seconds = {w: self._seconds[w] + passed if beats[w] == self._beats[w] else 0.0 for w in workers}
        self._beats = beats
        return self._seconds


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _anonymous_file() -> IO[bytes]:
    # No name: nothing is left behind however the processes end.
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("ctde_kit"), "w+b")
    return tempfile.TemporaryFile()


def _end_workers(
    processes: list[BaseProcess],
    pipes: list[Connection],
    selector: selectors.BaseSelector,
    block_file: IO[bytes],
    owner: int,
) -> None:
    """Close, then kill; a finalizer, so it runs at the latest when the interpreter exits."""
    if os.getpid() != owner:
        return
    for pipe in pipes:
        with contextlib.suppress(OSError):
            pipe.send_bytes(CLOSE)
    for last in (False, True):
        deadline = time.monotonic() + _GRACE
        for process in processes:
            if last and process.is_alive():
                process.kill()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    selector.close()
    block_file.close()
    for pipe in pipes:
        pipe.close()
