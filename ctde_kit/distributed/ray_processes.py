"""Objects in processes of a Ray cluster; the only file that knows Ray."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ctde_kit.cores import usable_cores
from ctde_kit.distributed.processes import ProcessLostError
from ctde_kit.distributed.signs_of_life import SignsOfLife
from ctde_kit.errors import UserError, one_line
from ctde_kit.training.random_state import unchanged_random_state

# Machines, as Ray names them, where a process gave no sign of life, and when, in seconds. Ray itself takes about a
# minute to give one up; one that it still has afterwards answers again.
_SILENT_NODES: dict[str, float] = {}
SILENT_FOR = 120.0


class RayProcesses:
    """Hosts objects in processes of a Ray cluster: one that it starts on this machine, or the user's own.

    A cluster that was running before stays running: nothing is ended but what was started here. Objects are placed one
    machine after the other, this one last; for two minutes a machine where a process gave no sign of life is used only
    where there is no other.

    Args:
        address: ``local`` to start one here, ``auto`` for the one that runs on this machine, or ``HOST:PORT``.
        timeout: seconds after which a process that gives no sign of life is taken for lost; at its start it gets
            minutes.

    Raises:
        UserError: where Ray is not installed, or no cluster answers.

    >>> from ctde_kit.distributed import RayProcesses
    >>> RayProcesses(timeout=0)
    Traceback (most recent call last):
        ...
    ctde_kit.errors.UserError: RayProcesses: timeout=0: expected seconds above 0
    """

    def __init__(self, address: str = "local", *, timeout: float = 60.0) -> None:
        if not timeout > 0:
            raise UserError(f"RayProcesses: timeout={timeout}: expected seconds above 0")
        if importlib.util.find_spec("ray") is None:
            raise UserError('Ray is not installed; run pip install "ctde-kit[ray]"')
        self.address, self.timeout = address, timeout
        self._hosted: list[RayObject] = []
        # Ray draws from Python's generator when it starts a cluster, and the run draws from there, too.
        with unchanged_random_state(), _own_signals():
            self._owns = _connect(address)

    def start(self, make: Callable[[], object], name: str) -> RayObject:
        ray = _ray()
        node = self._next_node()
        # Ray would place actors without a share of the processors, which are the user's to give, at random.
        place = _placement(node)
        options: dict[str, Any] = {"num_cpus": 0, "concurrency_groups": {"alive": 1}, "scheduling_strategy": place}
        actor = ray.remote(**options)(_Host).remote(sys.path)
        actor.build.remote(ray.cloudpickle.dumps(make))
        hosted = RayObject(actor, name, self.timeout, node)
        self._hosted.append(hosted)
        return hosted

    def _next_node(self) -> str:
        """The machine that has the fewest of the objects."""
        ray = _ray()
        own = ray.get_runtime_context().get_node_id()
        hosted = Counter(hosted.node for hosted in self._hosted if not hosted.has_ended)
        living = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
        silent = {node for node, since in _SILENT_NODES.items() if time.monotonic() - since < SILENT_FOR}
        return min(living, key=lambda node: (node in silent, hosted[node], node == own))

    def share(self, value: object) -> object:
        ray = _ray()
        return ray.put(value)

    def close(self) -> None:
        ray = _ray()
        for hosted in self._hosted:
            hosted.end()
        self._hosted = []
        if self._owns:
            ray.shutdown()


class RayObject:
    """An object in a Ray actor."""

    def __init__(self, actor: Any, name: str, timeout: float, node: str) -> None:
        self._actor, self.name, self.node, self.has_ended = actor, name, node, False
        self._signs = SignsOfLife(self._asked_whether_alive, timeout)

    def ask(self, method: str, *arguments: object) -> RayAnswer:
        self._signs.forget()
        # Arguments that are references of Ray are resolved where they arrive, if they stand by themselves.
        return RayAnswer(self._actor.call.remote(method, *arguments), self)

    def check_alive(self, seconds: float) -> None:
        ray = _ray()
        try:
            ray.get(self._sign(), timeout=seconds)
        except ray.exceptions.GetTimeoutError as error:
            raise self._silent(seconds) from error
        except ray.exceptions.RayError as error:
            raise self.lost(error) from error

    def check_signs(self) -> None:
        """Raise ``ProcessLostError`` where its process, which is waited for, has given no sign of life for too long."""
        if self._signs.missing(time.monotonic()):
            raise self._silent(self._signs.limit)

    def has_answered(self) -> None:
        """One of its calls was answered: from now on ``timeout`` is what it gets."""
        self._signs.answered()

    def lost(self, error: Exception) -> ProcessLostError:
        """Its process is gone, as an error of Ray says."""
        return ProcessLostError(f"{self.name} was lost ({type(error).__name__})")

    def _silent(self, seconds: float) -> ProcessLostError:
        _SILENT_NODES[self.node] = time.monotonic()
        return ProcessLostError(f"{self.name} gave no sign of life for {seconds:g} s")

    def _asked_whether_alive(self) -> Callable[[], bool]:
        ray, sign = _ray(), self._sign()
        return lambda: bool(ray.wait([sign], timeout=0)[0])

    def _sign(self) -> Any:
        """What its process answers even while it works."""
        return self._actor.alive.options(concurrency_group="alive").remote()

    def end(self) -> None:
        ray = _ray()
        ray.kill(self._actor)
        self.has_ended = True


class RayAnswer:
    """What a call of a Ray actor will return."""

    def __init__(self, reference: Any, hosted: RayObject) -> None:
        self._reference, self._hosted = reference, hosted

    def is_there(self, seconds: float) -> bool:
        if _ray().wait([self._reference], timeout=seconds)[0]:
            self._hosted.has_answered()
            return True
        self._hosted.check_signs()
        return False

    def get(self) -> Any:
        ray = _ray()
        hosted = self._hosted
        while not self.is_there(1.0):
            pass
        try:
            return ray.get(self._reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            cause.add_note(str(error))
            raise cause from None
        except ray.exceptions.RayError as error:
            raise hosted.lost(error) from error


class _Host:
    """What runs in the actor."""

    def __init__(self, path: list[str]) -> None:
        # What the program that starts it can import, it can.
        sys.path.extend(entry for entry in path if entry not in sys.path)
        self._object: object = None
        self._failure: BaseException | None = None

    def build(self, made: bytes) -> None:
        try:
            self._object = pickle.loads(made)()
        except BaseException as error:
            self._failure = error
            raise

    def call(self, method: str, *arguments: object) -> object:
        if self._failure is not None:
            raise self._failure
        return getattr(self._object, method)(*arguments)

    def alive(self) -> int:
        return os.getpid()


def _ray() -> Any:
    """The package, which is an extra."""
    return importlib.import_module("ray")


def _placement(node: str) -> Any:
    """On that machine; where it is gone, the object is lost, like one that was there."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy(node, soft=False)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """After the block signals do what they did before: Ray's handlers would end a run that is stopping by itself."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                # Set again where Python still knows it, too: beneath Python, Ray has put its own in its place.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _connect(address: str) -> bool:
    """Connect to a cluster; whether it was started here."""
    ray = _ray()
    if ray.is_initialized():
        return False
    # What it says of its token, which is as it should be, would stand beside a run's own lines.
    messages = logging.getLogger("ray._private.authentication.authentication_token_setup")
    messages.addFilter(_is_no_token_in_use)
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": False}
    if address == "local":
        ray.init(address="local", include_dashboard=False, num_cpus=usable_cores(), **quiet)
        return True
    try:
        if ":" in address:
            # Ray itself asks for minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(error, 200)
        raise UserError(
            f"address={address}: no Ray cluster answers ({reason}); start one with `ray start --head`, or choose local"
        ) from error
    return True


def _is_no_token_in_use(record: logging.LogRecord) -> bool:
    return "Token authentication is enabled" not in record.getMessage()
