"""How long threads of OpenMP spin before they sleep, where a command runs beside other programs."""

from __future__ import annotations

import os

# How many times a waiting thread checks for work before it sleeps. libgomp's default is 300,000, some milliseconds.
# Beside another program, a thread that spins holds a core that the thread it waits for could have.
# docs/reliability.md says what 10,000 costs where no other program runs.
SPINS = 10_000


def limit_spinning() -> None:
    """Set ``GOMP_SPINCOUNT``, which libgomp reads once, when torch is loaded.

    What the environment says already is left as it is: ``GOMP_SPINCOUNT``, or ``OMP_WAIT_POLICY``. Worker processes
    and programs that are started from here have it, too.

    >>> import os
    >>> limit_spinning()
    >>> "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    True
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
