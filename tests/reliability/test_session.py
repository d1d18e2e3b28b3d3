"""A quick part of the session ``reliability``, in a process of its own: it forks, and loads no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.command_line import ENVIRONMENT

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_kills_a_full_disk_two_processes_and_many_iterations_change_nothing() -> None:
    command = [sys.executable, "-m", "tests.reliability.measure", "--quick"]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1].removeprefix("quick: "))
    (killed,) = figures["kills"].values()
    assert (killed["kills"], killed["wrong"]) == (1, {})
    assert figures["full disk"] == {"metrics": []}
    assert figures["two processes"] == {"start and start": []}
    assert (figures["endurance"]["iterations"], figures["endurance"]["wrong"]) == (80, [])
