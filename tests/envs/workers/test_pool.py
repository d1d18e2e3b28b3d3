"""Worker processes that fail, die, or should end; factories that do not pickle."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest

from ctde_kit.envs.workers import WorkerError, pool, worker_env
from ctde_kit.errors import UserError
from tests.envs.toys import Make, ToyEnv, TurnEnv, make_and_close, step, tags

pytestmark = pytest.mark.timeout(60)
make = pytest.fixture(name="make")(make_and_close)


class Failing(ToyEnv):
    """Does ``what`` in step ``at`` of the env whose first tag is ``tag``."""

    def __init__(self, what: Callable[[], Any], at: int, tag: int) -> None:
        super().__init__()
        self.what, self.at, self.only = what, at, tag

    def step(self, actions: dict[str, Any]) -> Any:
        if self.tag == self.only and self.time + 1 == self.at:
            self.what()
        return super().step(actions)


def explode() -> None:
    raise ArithmeticError("two\nlines")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (explode, "worker 1 (envs 2-3) failed in step of env 3: ArithmeticError: two lines"),
        (lambda: sys.exit("bye"), "worker 1 (envs 2-3) failed in step of env 3: SystemExit: bye"),
        (lambda: os._exit(3), "worker 1 (envs 2-3) died: exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "worker 1 (envs 2-3) died: killed by SIGKILL"),
    ],
    ids=["raises", "exits", "os._exit", "SIGKILL"],
)
def test_a_failing_worker_is_one_line_and_never_a_hang(make: Make, what: Callable[[], Any], message: str) -> None:
    env = make(lambda: Failing(what, 2, tags(7, 0, 3, 1)[0]))
    data = step(env, env.reset())
    start = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        step(env, data)
    assert str(caught.value) == message
    assert time.monotonic() - start < 10
    assert not multiprocessing.active_children()
    with pytest.raises(WorkerError, match="have been closed; build the environment anew"):
        step(env, data)


def spin() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    "what",
    [pytest.param(spin, marks=pytest.mark.slow), lambda: os.kill(os.getpid(), signal.SIGSTOP)],
    ids=["an endless step", "a stopped process"],
)
def test_a_worker_that_hangs_is_named(make: Make, what: Callable[[], Any]) -> None:
    env = make(lambda: Failing(what, 2, tags(7, 0, 3, 1)[0]), worker_timeout=4.0)
    data = step(env, env.reset())
    start = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        step(env, data)
    assert str(caught.value) == (
        "worker 1 (envs 2-3) has not come back for 4 s from step of env 3; mend the environment, or give a larger "
        "worker_timeout"
    )
    assert time.monotonic() - start < 15
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_hanging_factory_is_named(make: Make) -> None:
    with pytest.raises(
        WorkerError, match=r"worker 0 \(envs 0-1\) has not come back for 2 s from the factory of env 0;"
    ):
        make(spin, worker_timeout=2.0)


def test_a_slow_worker_is_waited_for(make: Make) -> None:
    """The time is of one environment, not of all that a worker has."""

    class Sleepy(ToyEnv):
        def step(self, actions: dict[str, Any]) -> Any:
            time.sleep(1.2)
            return super().step(actions)

    env = make(Sleepy, worker_timeout=2.0)
    assert step(env, env.reset())["state"][:, 1].tolist() == [1] * 4


def test_there_are_as_many_workers_as_cores_that_may_be_used() -> None:
    with mock.patch.object(os, "sched_getaffinity", return_value={3, 5, 7}):
        env = worker_env(ToyEnv, n_envs=4)
    assert len(env._pool._processes) == 3
    env.close()
    env = worker_env(ToyEnv, n_envs=2)
    assert len(env._pool._processes) == min(2, len(os.sched_getaffinity(0)))
    env.close()


def test_a_worker_that_died_between_two_steps_is_found(make: Make) -> None:
    env = make(ToyEnv)
    data = env.reset()
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    with pytest.raises(WorkerError, match=r"died: killed by SIGKILL"):
        step(env, data)


def fork_and_die() -> None:
    """Leaves a process behind that keeps the worker's ends of all pipes open."""
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_whose_pipes_stay_open_is_found_dead(make: Make) -> None:
    env = make(lambda: Failing(fork_and_die, 2, tags(7, 0, 3, 1)[0]))
    data = step(env, env.reset())
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"worker 1 \(envs 2-3\) died: killed by SIGKILL"):
        step(env, data)
    assert time.monotonic() - start < 10


def test_a_failing_factory(make: Make) -> None:
    with pytest.raises(
        WorkerError, match=r"^worker \d \(envs \d-\d\) failed in the factory of env \d: ArithmeticError: two"
    ):
        make(explode)
    with pytest.raises(UserError, match="expected it to return a pettingzoo ParallelEnv or AECEnv, found int"):
        make(lambda: 3)
    with pytest.raises(WorkerError, match=r"died: exit code 4"):
        make(lambda: os._exit(4))


def test_a_failing_reset(make: Make) -> None:
    class Stuck(ToyEnv):
        def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            if seed is not None:
                raise LookupError
            return super().reset(seed, options)

    with pytest.raises(WorkerError, match=r"^worker \d \(envs \d-\d\) failed in reset of env \d: LookupError\n"):
        make(Stuck).reset()


class Wrong(ToyEnv):
    def _observe(self, agent: str, action: float) -> Any:
        return np.zeros(1, np.float32) if self.time > 1 else super()._observe(agent, action)


def test_observations_are_not_broadcast(make: Make) -> None:
    with pytest.raises(WorkerError, match=r"observation of 'walker_0': expected shape \(4,\), found \(1,\)"):
        make(Wrong).rollout(3)


@pytest.mark.parametrize(("reward", "found"), [(np.array([1.0]), r"an array of shape \(1,\)"), ("much", "'much'")])
def test_a_reward_that_is_no_number_is_named(make: Make, reward: object, found: str) -> None:
    class Odd(ToyEnv):
        def step(self, actions: Any) -> Any:
            observations, rewards, *rest = super().step(actions)
            return observations, dict.fromkeys(rewards, reward), *rest

    with pytest.raises(WorkerError, match=f"reward of '.*': expected a number, found {found}"):
        make(Odd).rollout(3)


def test_unlike_environments_are_refused(make: Make) -> None:
    lock, made = threading.Lock(), []

    def factory() -> ToyEnv:
        with lock:
            made.append(None)
        return ToyEnv(masks=len(made) > 1)

    with pytest.raises(UserError, match="expected every environment alike, found env 1"):
        make(factory)
    assert not made


def test_a_factory_need_not_pickle(make: Make) -> None:
    lock = threading.Lock()

    class Local(ToyEnv):
        def step(self, actions: dict[str, Any]) -> Any:
            with lock:
                return super().step(actions)

    assert make(lambda: Local(limit=3)).rollout(5).shape == (4, 3)


@pytest.mark.parametrize("name", ["n_envs", "n_workers", "max_steps"])
def test_arguments_out_of_range(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: expected an integer >= 1, found 0"):
        worker_env(ToyEnv, **cast(Any, {"n_envs": 2} | {name: 0}))


def test_seeds_out_of_range_and_states_that_are_not_there(make: Make) -> None:
    with pytest.raises(UserError, match="seed: expected an integer >= 0 or None, found -1"):
        make(ToyEnv, seed=-1)
    assert "state" not in make(ToyEnv, return_state=False).reset()
    assert "state" not in make(TurnEnv).reset()
    with pytest.raises(UserError, match=r"return_state: expected an environment with state\(\)"):
        make(TurnEnv, return_state=True)


def test_a_program_that_was_stopped_for_a_while_blames_no_worker(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(lambda: Failing(lambda: time.sleep(2.5), 1, tags(7, 0, 3, 1)[0]), worker_timeout=30.0)
    data, monotonic, calls = env.reset(), time.monotonic, itertools.count()
    # As after Ctrl-Z: a thousand seconds pass between two looks at the workers.
    monkeypatch.setattr(pool.time, "monotonic", lambda: monotonic() + 1000 * (next(calls) > 0))
    assert step(env, data)["walker", "observation"][:, 0, 1].tolist() == [1] * 4


class Slow(ToyEnv):
    def close(self) -> None:
        time.sleep(60)


def test_closing_does_not_wait_for_a_stuck_environment() -> None:
    env = worker_env(Slow, n_envs=2, n_workers=2)
    workers = multiprocessing.active_children()
    start = time.monotonic()
    env.close()
    env.close()
    assert time.monotonic() - start < 15
    # They ignore SIGTERM, which Slurm sends to them and to this process alike, so only this ends them.
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2


SCRIPT = """
import os, sys, signal, time
sys.path.insert(0, {path!r})
from tests.envs.toys import ToyEnv
from ctde_kit.envs.workers import worker_env
env = worker_env(ToyEnv, n_envs=2, n_workers=2)
other = worker_env(ToyEnv, n_envs=2, n_workers=2)
env.reset()
print(time.monotonic(), *[process.pid for pool in (env._pool, other._pool) for process in pool._processes], flush=True)
if os.fork() == 0:
    # A process that has all of the parent's pipes open, as another child of a training run would.
    os.close(1), os.close(2), time.sleep(40), os._exit(0)
{end}
"""


ENDLESS = """
import ctypes, os, sys, signal, threading, time
sys.path.insert(0, {path!r})
from tests.envs.toys import ToyEnv, step
from ctde_kit.envs.workers import worker_env
class Endless(ToyEnv):
    def step(self, actions):
        if self.in_c:
            ctypes.PyDLL(None).sleep(60)  # lets no other Python code run meanwhile
        while True:
            pass
def make():
    env = Endless()
    env.in_c = {in_c}
    return env
env = worker_env(make, n_envs=2, n_workers=2)
data = env.reset()
print(time.monotonic(), *[process.pid for process in env._pool._processes], flush=True)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
step(env, data)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param("", marks=pytest.mark.slow),
        pytest.param("raise KeyboardInterrupt", marks=pytest.mark.slow),
        "os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_no_worker_outlives_its_parent(end: str) -> None:
    code = SCRIPT.format(path=str(Path(__file__).parents[3]), end=end)
    assert_no_worker_is_left(code, n_workers=4)


CLOSING = """
import os, sys, signal, time
sys.path.insert(0, {path!r})
from pathlib import Path
from tests.envs.toys import ToyEnv
from ctde_kit.envs.workers import worker_env
class Closing(ToyEnv):
    def close(self):
        Path({folder!r}, str(os.getpid())).touch()
env = worker_env(Closing, n_envs=4, n_workers=2)
env.reset()
print(time.monotonic(), *[process.pid for process in env._pool._processes], flush=True)
if os.fork() == 0:
    os.close(1), os.close(2), time.sleep(40), os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.timeout(120)
def test_environments_are_closed_where_the_parent_is_killed(tmp_path: Path) -> None:
    """Though another process holds the pipes open, so that no worker sees their end."""
    assert_no_worker_is_left(CLOSING.format(path=str(Path(__file__).parents[3]), folder=str(tmp_path)), n_workers=2)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("in_c", [True, False])
def test_no_endless_step_outlives_its_parent(in_c: bool) -> None:
    assert_no_worker_is_left(ENDLESS.format(path=str(Path(__file__).parents[3]), in_c=in_c), n_workers=2)


@pytest.mark.slow
def test_workers_outlive_the_thread_that_made_them(make: Make) -> None:
    """The kernel tells a child of the death of the thread that forked it as of its parent's."""
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(make(ToyEnv)))
    thread.start()
    thread.join()
    (env,) = made
    data = step(env, env.reset())
    time.sleep(3.5)
    assert step(env, data)["state"][:, 1].tolist() == [2] * 4


def assert_no_worker_is_left(code: str, n_workers: int) -> None:
    """Within 15 s of the time, on the system's clock, that ``code`` prints before the processes of its workers."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    ended, *pids = done.stdout.split()
    assert len(pids) == n_workers, done.stderr
    while time.monotonic() < float(ended) + 15 and any(os.path.exists(f"/proc/{pid}") for pid in pids):
        time.sleep(0.1)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    assert time.monotonic() < float(ended) + 15
