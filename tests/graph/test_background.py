"""Programs in the background: forks wait while they start, and they end with the process that started them."""

import os
import subprocess
import sys
import threading
import time

import pytest

from ctde_kit.graph import background
from ctde_kit.graph.background import run, starting


def forked() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def test_forks_wait_while_a_program_starts() -> None:
    begun, done = threading.Event(), threading.Event()

    def start() -> None:
        with starting():
            begun.set()
            time.sleep(0.3)
            done.set()

    threading.Thread(target=start).start()
    assert begun.wait(60)
    forked()
    assert done.is_set()


def test_a_fork_that_waited_too_long_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 0.1)
    with starting():
        forked()
    with starting():
        pass


def test_forks_do_not_wait_for_a_program_that_runs() -> None:
    thread = threading.Thread(target=run, args=([sys.executable, "-c", "import time; time.sleep(5)"],))
    started = time.perf_counter()
    thread.start()
    forked()
    assert time.perf_counter() - started < 4
    thread.join()


def test_a_program_that_fails_says_so() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])


PROGRAM = """
import os, sys, threading
from ctde_kit.graph.background import run

child = "import os, time; print(os.getpid(), file=open('pid', 'w'), flush=True); time.sleep(60)"
parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
threading.Thread(target=run, args=([sys.executable, "-c", parent],), daemon=True).start()
while not (os.path.exists("pid") and open("pid").read()):
    pass
"""


def test_a_program_ends_with_the_process(tmp_path: object) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], cwd=str(tmp_path), check=True)
    with open(f"{tmp_path}/pid") as file:
        pid = int(file.read())
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("what the program had started is left")
