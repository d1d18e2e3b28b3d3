"""Whether this machine can compile, with how many threads compiled code runs, and messages about compiling."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from ctde_kit.errors import one_line

# With fewer rows than this, one thread is faster than several.
FEW_ROWS = 300
# Compiling MANY_OPERATIONS takes a minute.
MANY_OPERATIONS, SECONDS_PER_OPERATION = 6_000, 0.010
logger = logging.getLogger("ctde_kit")


def missing_toolchain() -> str | None:
    """What is missing to compile for a CPU, in a few words; ``None`` where nothing is."""
    if shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is None:
        return "no C++ compiler is found (install g++, or set CXX)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers are not found (install python3-dev)"
    return None


def useful_threads(rows: int) -> int | None:
    """How many threads a compiled graph over ``rows`` rows should use; ``None`` for torch's own number.

    With few rows, threads lose more by waiting for each other than they gain.
    """
    return 1 if rows < FEW_ROWS else None


def report_long_compile(operations: int) -> None:
    """Log in one line how long compiling will take, if that is a minute or more."""
    if operations >= MANY_OPERATIONS:
        minutes = round(operations * SECONDS_PER_OPERATION / 60)
        logger.warning(
            "compiling %d operations, about %d min, or seconds where their code is in the cache", operations, minutes
        )


def report_fallback(what: str, reason: object) -> None:
    """Log in one line that ``what`` runs without being compiled, and why."""
    logger.warning("%s is not compiled: %s", what, one_line(reason))
