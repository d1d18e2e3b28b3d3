"""What runs in a worker process: it builds its environments, and steps them on the parent's commands."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import IO

import numpy as np
import torch

from ctde_kit.envs.pettingzoo.aec import AnyParallelEnv, as_parallel
from ctde_kit.envs.workers.block_layout import SELECTED, BlockLayout, EnvDescription
from ctde_kit.envs.workers.env_rows import EnvRow, describe
from ctde_kit.errors import UserError, one_line

RESET, STEP, CLOSE, DONE = b"reset", b"step", b"close", b"done"
# A step, and a reset where the episode ends in it.
STEP_ON = b"step on"
# The number of the env follows.
RENDER = b"render "

_PARENT_CHECK = 2.0
"""Seconds between two looks at whether the parent still lives."""
_PR_SET_PDEATHSIG = 1
"""Linux: which signal the kernel sends to a process whose parent has died."""


@dataclass(frozen=True)
class Failure:
    """What a worker reports of an exception: strings, since the exception itself may not pickle."""

    env: int | None
    doing: str
    cause: str
    trace: str
    user_error: bool


class Worker:
    """The environments of one process, and what it is doing with which."""

    def __init__(
        self, factory: Callable[[], object], indices: Sequence[int], block_file: IO[bytes], beat: Callable[..., None]
    ) -> None:
        self._factory, self._indices, self._block_file, self._beat = factory, indices, block_file, beat
        self._envs: list[AnyParallelEnv] = []
        self._rows: list[EnvRow] = []
        self._current: int | None = None
        self._doing = ""

    def build(self) -> list[EnvDescription]:
        """Make the environments."""
        descriptions = []
        for index in self._indices:
            self._begin("the factory", index)
            env = as_parallel(self._factory())
            self._envs.append(env)
            self._begin("the first reset", index)
            descriptions.append(describe(env))
        return descriptions

    def attach(self, layout: BlockLayout) -> None:
        """Map the shared block."""
        self._begin("sharing memory")
        block = layout.map(self._block_file)
        self._block_file.close()
        self._selected = block[SELECTED]
        self._rows = [EnvRow(i, env, layout, block) for i, env in zip(self._indices, self._envs, strict=True)]

    def run(self, command: bytes) -> None:
        """Reset or step the selected environments."""
        for row in self._rows:
            if not self._selected[row.index]:
                continue
            if command != RESET:
                self._begin("step", row.index)
                row.step()
            if command == RESET or (command == STEP_ON and row.keep_last()):
                self._begin("reset", row.index)
                row.reset()

    def render(self, index: int) -> np.ndarray | None:
        """A picture of one environment, ``None`` where it draws none."""
        self._begin("render", index)
        env = self._envs[self._indices.index(index)]
        # MaMuJoCo does not say what its mode is.
        if getattr(env, "render_mode", "rgb_array") != "rgb_array":
            return None
        try:
            picture = env.render()
        except NotImplementedError:
            return None
        return None if picture is None or isinstance(picture, str) else np.ascontiguousarray(picture, dtype=np.uint8)

    def close(self) -> None:
        """Close the environments."""
        self._begin("close")
        for env in self._envs:
            env.close()

    def _begin(self, doing: str, env: int | None = None) -> None:
        self._current, self._doing = env, doing
        self._beat(doing, env)

    def failure(self, error: BaseException) -> Failure:
        """What to report to the parent about ``error``."""
        message = one_line(error)
        user_error = isinstance(error, UserError)
        cause = message if user_error else f"{type(error).__name__}: {message}" if message else type(error).__name__
        return Failure(self._current, self._doing, cause, traceback.format_exc(), user_error)


def serve(
    pipe: Connection,
    factory: Callable[[], object],
    indices: Sequence[int],
    block_file: IO[bytes],
    beat: Callable[..., None],
    parents_end: Connection,
    parent: int,
    by_main_thread: bool,
) -> None:
    """The life of a worker: descriptions, then the layout, then commands until the parent closes or is gone."""
    parents_end.close()
    _leave_the_parent_behind(parent)
    # The kernel takes the death of the thread that forked for the parent's.
    if by_main_thread and sys.platform == "linux":
        _die_in_c_code_with(parent)
    worker = Worker(factory, indices, block_file, beat)
    try:
        pipe.send_bytes(pickle.dumps(worker.build()))
        receive = partial(_receive, pipe, _waiting_for(pipe), parent)
        command = receive()
        if command != CLOSE:
            worker.attach(pickle.loads(command))
            pipe.send_bytes(DONE)
        while command != CLOSE and (command := receive()) != CLOSE:
            if command.startswith(RENDER):
                pipe.send_bytes(pickle.dumps(worker.render(int(command.removeprefix(RENDER)))))
                continue
            worker.run(command)
            pipe.send_bytes(DONE)
        worker.close()
    except BaseException as error:
        with contextlib.suppress(OSError):
            pipe.send_bytes(pickle.dumps(worker.failure(error)))


def _waiting_for(pipe: Connection) -> selectors.BaseSelector:
    # `pipe.poll` makes a selector at each call, which takes as long as all else that a message does.
    selector = selectors.DefaultSelector()
    selector.register(pipe, selectors.EVENT_READ)
    return selector


def _receive(pipe: Connection, selector: selectors.BaseSelector, parent: int) -> bytes:
    # Other workers hold copies of the pipe, so its end is no sure sign of the parent's death; its process id is.
    while not selector.select(_PARENT_CHECK):
        if os.getppid() != parent:
            signal.alarm(0)  # leaves time to close the environments; `_die_with` still limits it
            return CLOSE
    try:
        return pipe.recv_bytes()
    except (EOFError, ConnectionResetError):
        return CLOSE


def _leave_the_parent_behind(parent: int) -> None:
    # The parent's objects are not collected here: their finalizers would act on the parent's resources.
    gc.freeze()
    # A terminal interrupts, and Slurm terminates, all processes at once; the parent ends its iteration with its workers
    # and then closes them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Threads of the parent's pools do not exist here: a parallel region would wait for them.
    torch.set_num_threads(1)
    # A step that never returns does not look whether the parent still lives; this thread does.
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    """End this process once ``parent`` is gone, whatever else it is doing."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK)
    # A worker that waits for commands ends by itself, and closes its environments.
    time.sleep(2 * _PARENT_CHECK)
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_c_code_with(parent: int) -> None:
    """Have the kernel end this process 3 s after ``parent``, also in C code that lets no other Python code run.

    The signal's handler is the C function ``alarm``, called with the signal's number, SIGQUIT's 3: as many seconds
    later SIGALRM ends the process. A handler of Python's would wait for the C code.
    """
    libc = ctypes.CDLL(None)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    libc.signal(ctypes.c_int(signal.SIGQUIT), libc.alarm)
    libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGQUIT))
    if os.getppid() != parent:
        os._exit(1)  # it died before it was asked for
