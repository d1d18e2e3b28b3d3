"""Two machines of one Ray cluster on this one: two network namespaces that are joined by a link."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctde_kit.training import latest_checkpoint, read_checkpoint
from tests.distributed.ray_runs import RayRun, StartRun, marked, rows, title
from tests.recipes.command_line import ENVIRONMENT, call
from tests.recipes.resuming import same

# The first has the head of the cluster, and the run's own process.
MACHINES = ("first", "second")
ADDRESSES = {"first": "10.213.77.1", "second": "10.213.77.2"}
PORT = 6379
MARK = "CTDE_KIT_TEST_CLUSTER"
# No server knows the names of the machines, so do not wait long for one.
NO_NAMES = "RES_OPTIONS=timeout:1 attempts:1"
# Seconds: of `distributed.timeout` in these runs.
TIMEOUT = 5


def why_not() -> str | None:
    """Why there can be no two machines here; ``None`` where there can."""
    missing = [program for program in ("ip", "nsenter") if shutil.which(program) is None]
    if missing:
        return f"two machines need network namespaces: no {' and no '.join(missing)} here (iproute2, util-linux)"
    name = f"ctde{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


class TwoMachines:
    """Two network namespaces, a link between them, and a node of one Ray cluster in each.

    Args:
        path: an empty directory for the files of Ray. Ray allows it about 40 characters.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._mark = path, f"{MARK}={uuid.uuid4().hex}"
        self._spaces = {machine: f"ctde{os.getpid()}{machine}" for machine in MACHINES}
        self._links = {machine: f"ctde{os.getpid()}{machine[0]}" for machine in MACHINES}
        self._nodes: dict[str, subprocess.Popen] = {}

    def begin(self) -> None:
        for space in self._spaces.values():
            _ip("netns", "add", space)
        one, two = MACHINES
        peer = ["peer", "name", self._links[two], "netns", self._spaces[two]]
        _ip("link", "add", self._links[one], "netns", self._spaces[one], "type", "veth", *peer)
        for machine in MACHINES:
            self._in(machine, "link", "set", "lo", "up")
            self._in(machine, "address", "add", f"{ADDRESSES[machine]}/24", "dev", self._links[machine])
            self._raise_link(machine)
        for machine in MACHINES:
            self._start_node(machine)

    @property
    def address(self) -> str:
        """Of the cluster."""
        return f"{ADDRESSES['first']}:{PORT}"

    def inside(self, machine: str) -> list[str]:
        """What runs a command on a machine."""
        # Ray would use the user's token on the first machine alone; nobody else reaches these two.
        return ["nsenter", f"--net=/run/netns/{self._spaces[machine]}", "env", "RAY_AUTH_MODE=disabled", NO_NAMES]

    def hosts(self, machine: str) -> list[int]:
        """The processes on a machine that host an object."""
        network = os.stat(f"/run/netns/{self._spaces[machine]}").st_ino
        return [pid for pid in marked(self._mark) if title(pid).startswith("ray::_Host") and _network(pid) == network]

    def living(self) -> int:
        """How many machines the cluster has, as it says itself."""
        program = (
            "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False); "
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        command = [*self.inside("first"), sys.executable, "-c", program, self.address]
        answer = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True)
        return int(answer.stdout)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Inside the block nothing comes through between the machines; afterwards both are in the cluster again."""
        self._in("second", "link", "set", self._links["second"], "down")
        try:
            yield
        finally:
            self._raise_link("second")
            self.repair()

    def repair(self) -> None:
        """Start the second machine's node again, where Ray has given it up."""
        until = time.monotonic() + 60
        while self._nodes["second"].poll() is None and self.living() < len(MACHINES):
            assert time.monotonic() < until, "the second machine neither came back nor ended"
            time.sleep(1)
        if self._nodes["second"].poll() is not None:
            self._start_node("second")

    def end(self) -> None:
        for process in self._nodes.values():
            process.terminate()
        for process in self._nodes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for pid in marked(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._nodes.values():
            process.wait()
        for space in self._spaces.values():
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)

    def _start_node(self, machine: str) -> None:
        first = ["--head", f"--port={PORT}", f"--temp-dir={self.path}", "--include-dashboard=false"]
        place = first if machine == "first" else [f"--address={self.address}"]
        options = [f"--node-ip-address={ADDRESSES[machine]}", "--num-cpus=2", "--object-store-memory=100000000"]
        command = [*self.inside(machine), sys.executable, "-m", "ray.scripts.scripts", "start", *place, *options]
        log = self.path.parent / f"{machine}.log"
        environment = {**ENVIRONMENT, **dict([self._mark.split("=")])}
        with log.open("w") as output:
            self._nodes[machine] = subprocess.Popen(
                [*command, "--disable-usage-stats", "--block"],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert self._nodes[machine].poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def _raise_link(self, machine: str) -> None:
        self._in(machine, "link", "set", self._links[machine], "up")
        # Ray and the learners find their own address by the route to elsewhere, which goes when the link does.
        other = ADDRESSES[MACHINES[1 - MACHINES.index(machine)]]
        self._in(machine, "route", "replace", "default", "via", other, "dev", self._links[machine])

    def _in(self, machine: str, *arguments: str) -> None:
        _ip("-netns", self._spaces[machine], *arguments)


@dataclass(frozen=True)
class Layout:
    """A run that has processes on both machines.

    Args:
        command: the recipe and its options.
        begun: the file in its directory that says that it has begun.
        hosts: how many objects there are on each machine then.
    """

    command: Sequence[str]
    begun: str
    hosts: tuple[int, int]

    def on_one_machine(self, path: Path) -> Path:
        """The same run on this machine; returns its directory."""
        result = call(path, *self.command, "distributed.address=local", "hydra.run.dir=run")
        assert result.returncode == 0, result.stderr
        return path / "run"

    def start(self, machines: TwoMachines, started: StartRun, path: Path, *options: str) -> RayRun:
        """The run, once it has begun."""
        places = [f"distributed.address={machines.address}", f"distributed.timeout={TIMEOUT}"]
        run = started(*self.command, *places, *options, "hydra.run.dir=run", inside=machines.inside("first"))
        run.wait_for_file(path / "run" / self.begun)
        assert tuple(len(machines.hosts(machine)) for machine in MACHINES) == self.hosts
        return run


def errors_of_success(run: RayRun) -> str:
    """What a run that ends well has written to standard error."""
    errors = run.end()
    assert run.process.returncode == 0, errors
    return errors


def error_behind_cut(machines: TwoMachines, run: RayRun) -> str:
    """The line with which a run ends, in time, where the link is cut."""
    with machines.cut():
        cut = time.monotonic()
        run.process.wait(120)
        seconds = time.monotonic() - cut
    errors = run.end()
    assert run.process.returncode == 2, errors
    assert seconds < TIMEOUT + 15, errors
    # Above it torch may warn of machines without names.
    return errors.strip().splitlines()[-1]


def assert_nothing_is_left(machines: TwoMachines, run: RayRun) -> None:
    """No process of a run, and no object on either machine; the cluster, which was there before, lives."""
    until = time.monotonic() + 15
    while left := [*run.processes(), *(pid for machine in MACHINES for pid in machines.hosts(machine))]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    assert machines.living() == len(MACHINES)


def assert_same(algorithm: str, ours: Path, theirs: Path) -> None:
    """Both runs have the same rows, and end with the same parts and random streams."""
    assert rows(ours) == rows(theirs)
    ends = [read_checkpoint(latest_checkpoint(run / "checkpoints"), algorithm=algorithm) for run in (ours, theirs)]
    for part in ("parts", "random"):
        assert same(ends[0][part], ends[1][part]), part


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _network(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
