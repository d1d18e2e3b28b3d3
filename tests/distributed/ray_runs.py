"""Runs with processes of Ray, which tests disturb."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from ctde_kit.training import read_metrics
from tests.recipes.command_line import ENVIRONMENT, command

MARK = "CTDE_KIT_TEST_RUN"


class RayRun:
    """A command that runs; all of its processes, those of Ray too, have a mark in their environment.

    Args:
        cwd: where it runs.
        arguments: the recipe and its options.
        inside: a command that runs the command, such as one that enters a network namespace.
    """

    def __init__(self, cwd: Path, *arguments: str, inside: Sequence[str] = ()) -> None:
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        environment = {**ENVIRONMENT, **dict([self.mark.split("=")])}
        self._errors = cwd / f"{self.mark.partition('=')[2]}.errors"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*inside, *command(*arguments)], cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )

    def processes(self) -> list[int]:
        """All that run."""
        return marked(self.mark)

    def hosts(self) -> list[int]:
        """Those that host an object, by their order of starting; Ray shows the class in their titles."""
        return [pid for pid in self.processes() if title(pid).startswith("ray::_Host")]

    def end(self, seconds: float = 300) -> str:
        """Wait for the end; what was written to standard error."""
        self.process.wait(seconds)
        deadline = time.monotonic() + 15
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.errors()

    def errors(self) -> str:
        """What was written to standard error so far."""
        return self._errors.read_text()

    def wait_for_file(self, path: Path) -> None:
        """Wait until it has written that file."""
        self._wait(path.exists, f"no {path}", 240)

    def wait_for_error(self, text: str, seconds: float) -> None:
        """Wait until standard error has ``text``."""
        self._wait(lambda: text in self.errors(), f"no {text!r}", seconds)

    def _wait(self, is_there: Callable[[], bool], missing: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not is_there():
            assert self.process.poll() is None, f"{missing}: {self.errors()}"
            assert time.monotonic() < deadline, f"{missing} after {seconds:g} s: {self.errors()}"
            time.sleep(0.05)

    def kill(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def marked(mark: str) -> list[int]:
    """The processes that have ``NAME=VALUE`` in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


StartRun = Callable[..., RayRun]


def rows(run: Path) -> list[dict[str, float]]:
    """Of ``metrics.csv``, without the seconds."""
    found = list(read_metrics(run / "metrics.csv"))
    assert found
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
