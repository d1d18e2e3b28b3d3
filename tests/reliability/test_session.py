"""A quick part of the session ``reliability``, in a process of its own: it forks, and loads no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.recipes.command_line import ENVIRONMENT

ROOT = Path(__file__).parents[2]


def test_kills_a_full_disk_and_two_processes_change_nothing() -> None:
    command = [sys.executable, "-m", "tests.reliability.measure", "--quick", "--kills", "2"]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout[result.stdout.index("{\n") :])
    assert [one["wrong"] for one in figures["kills"].values()] == [[]]
    assert figures["kills"]["MAPPO, MLP"]["kills"] == 2
    assert figures["full disk"] == {"metrics": []}
    assert figures["two processes"] == {"start and start": []}
