"""What all tests share: one thread per process, one folder of compiled code per run, and the same random numbers."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from unittest import mock

import pytest

# Tensors are small: a second thread only waits, and beside another program it makes tests many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kernels are compiled in the process that needs them: a pool beside each worker would import torch again.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# Torch asks by three small programs whether the compiler knows the processor's vector instructions, which takes longer
# than a test's own kernels. A compiler that does not know them fails at the first kernel.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
COMPILED = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """One empty folder of compiled code for the whole run: what a test compiles, no other test, worker or process
    compiles again. A folder that is named from outside is used as it is, and stays."""
    # Workers of xdist inherit the environment of the process that started them.
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        config.stash[COMPILED] = tempfile.mkdtemp(prefix="ctde_kit_compiled_")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = config.stash[COMPILED]


def pytest_unconfigure(config: pytest.Config) -> None:
    """The folder ends with the run that made it."""
    if COMPILED in config.stash:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
        shutil.rmtree(config.stash[COMPILED], ignore_errors=True)


def pytest_collection_finish() -> None:
    """What importing and collecting made stays to the end: the garbage collector need not look at it each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test draws the same random numbers, alone or among others."""
    # Imported late: the process that only hands tests to workers needs no torch.
    import torch

    torch.manual_seed(0)


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors and networks have twice the usual precision, for comparisons with plain formulas."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def errors_in_the_callers_words(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No error that the library raises in a test speaks in command-line syntax."""
    from ctde_kit.errors import UserError
    from tests.error_words import COMMAND_LINE_SYNTAX

    found = []

    def noted(error: UserError, *arguments: object) -> None:
        ValueError.__init__(error, *arguments)
        module = sys._getframe(1).f_globals["__name__"]
        if module.startswith("ctde_kit.") and not module.startswith("ctde_kit.recipes."):
            found.extend(f"{module}: {text}" for text in map(str, arguments) if COMMAND_LINE_SYNTAX.search(text))

    monkeypatch.setattr(UserError, "__init__", noted)
    yield
    assert not found


@pytest.fixture(scope="module")
def no_curves() -> Iterator[None]:
    """Runs in this process draw no learning curves, which would take most of the seconds of a small run."""
    from ctde_kit.training import runner

    with mock.patch.object(runner, "plot_run"):
        yield


@contextlib.contextmanager
def graphs_as_traced() -> Iterator[None]:
    """Graphs run operation by operation, as they were traced: most of the time of compiling goes into kernels."""
    from ctde_kit.graph import agreement
    from ctde_kit.training import compiled_gradients

    with contextlib.ExitStack() as patches:
        for module in (agreement, compiled_gradients):
            patches.enter_context(mock.patch.object(module, "compile_graph", lambda graph, **_: graph))
        yield


@pytest.fixture(params=["traced", pytest.param("compiled", marks=pytest.mark.slow)])
def graphs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Graphs as they were traced; ``nox -s slow`` compiles them, too.

    For tests of what is in a graph and what is around it, where another test compiles a graph of the same kind.
    """
    with graphs_as_traced() if request.param == "traced" else contextlib.nullcontext():
        yield
