"""Commands limit how long OpenMP's threads spin, before torch is loaded, and leave what the user has set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from ctde_kit.recipes.commands.main import main
sys.argv = ["ctde", "recipes"]
main()
assert "torch" not in sys.modules
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "10000 None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
)
def test_it_is_set_before_torch_is_loaded(given: dict[str, str], expected: str) -> None:
    inherited = {name: os.environ[name] for name in os.environ if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=inherited | given, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == expected
