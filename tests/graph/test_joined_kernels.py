"""Kernels that share a file compute what each computes in a file of its own, and are found again."""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor_config
from torch._inductor.utils import fresh_cache

from ctde_kit.graph import compile_graph, joined_kernels, trace, tracing
from ctde_kit.graph.tracing import Compiled

compiling: Any = importlib.import_module("torch._inductor.async_compile").AsyncCompile
N_LAYERS = 5
X = torch.linspace(-1, 1, 24).reshape(6, 4)
WEIGHTS = [torch.linspace(-1, 1 + layer, 16).reshape(4, 4) for layer in range(N_LAYERS)]


def layers(inputs: list[Tensor]) -> list[Tensor]:
    """A kernel after each product, each with other numbers."""
    x, outputs = inputs[0], list[Tensor]()
    for number, weight in enumerate(WEIGHTS):
        x = (x @ weight).tanh() + number
        outputs.append(x.sum(number % 2))
    return [x, *outputs]


def compiled_layers() -> Compiled:
    return compile_graph(trace(layers, [X], live=WEIGHTS))


def check(outputs: Sequence[Tensor]) -> None:
    for output, expected in zip(outputs, layers([X]), strict=True):
        torch.testing.assert_close(output, expected)


def bodies(folder: Path) -> list[str]:
    """What the kernels do, without their names."""
    code = "".join(file.read_text() for file in folder.rglob("*.main.cpp"))
    return sorted(re.findall(r'^extern "C".*?^}', code, re.MULTILINE | re.DOTALL))


def compiled_in(folder: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> list[str]:
    """The kernels that are written for the layers, compiled by so many threads."""
    # Inductor knows kernels that it has loaded by their code.
    with fresh_cache(), inductor_config.patch(compile_threads=threads):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        check(compiled_layers()([X]))
    return bodies(folder)


def test_few_files_with_the_same_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    by_one_thread = compiled_in(tmp_path / "one", monkeypatch, 1)
    by_two_threads = compiled_in(tmp_path / "two", monkeypatch, 2)
    monkeypatch.setattr(tracing, "joined_kernels", nullcontext)
    apart = compiled_in(tmp_path / "apart", monkeypatch, 2)
    n_files = [len(list((tmp_path / name).rglob("*.main.so"))) for name in ("one", "two", "apart")]
    assert n_files == [joined_kernels.MOST_FILES, joined_kernels.MOST_FILES, N_LAYERS]
    assert by_one_thread == by_two_threads == apart


PROGRAM = """
import torch
from torch._inductor import cpp_builder
from tests.graph.test_joined_kernels import X, check, compiled_layers

build = cpp_builder.CppBuilder.build
cpp_builder.CppBuilder.build = lambda self: (print("compiles"), build(self))[1]
check(compiled_layers()([X]))
"""


def test_another_process_finds_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    runs = [
        subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.count("compiles") > 0 for run in runs] == [True, False]
    assert len(list(tmp_path.rglob("*.main.so"))) == joined_kernels.MOST_FILES


def kernel(name: str, value: int) -> str:
    return f"#include <cstdlib>\nstatic int shared = {value};\nint kernel() {{ return shared; }} // {name}"


@pytest.fixture
def files() -> list[str]:
    """The files that were to be compiled."""
    return []


@pytest.fixture
def load_async(files: list[str]) -> Callable[..., Any]:
    def usual(code: str, device: str = "cpu", submit_fn: object = None, **options: object) -> Callable[[], object]:
        files.append(code)
        return lambda: code

    return joined_kernels._Joining(usual).load_async


def test_files_have_about_as_much_code(load_async: Callable[..., Any], files: list[str]) -> None:
    sizes = [1000, 10, 20, 30, 300, 280, 290]
    loads = [load_async(kernel("x" * size, size), submit_fn=len) for size in sizes]
    assert files == []
    loads[0]()
    (long, *others) = sorted(files, key=len, reverse=True)
    assert long == kernel("x" * 1000, 1000)
    assert len(others) == joined_kernels.MOST_FILES - 1
    assert max(map(len, others)) < 1.3 * min(map(len, others))


def test_what_inductor_compiles_in_another_way_is_left_to_it(load_async: Callable[..., Any], files: list[str]) -> None:
    code = kernel("", 3)
    load_async(code, submit_fn=len, extra_flags=["-O1"])
    load_async(code, "cuda", submit_fn=len)
    load_async("#include <vector>\n" + code, submit_fn=len)
    assert files == [code, code, "#include <vector>\n" + code]


def test_a_single_kernel_stays_as_it_is(load_async: Callable[..., Any], files: list[str]) -> None:
    assert load_async(kernel("", 3), submit_fn=len)() == kernel("", 3)
    assert files == [kernel("", 3)]


def test_inductor_is_left_as_it_was() -> None:
    before = dict(vars(compiling))
    with joined_kernels.joined_kernels():
        assert dict(vars(compiling)) != before
    assert dict(vars(compiling)) == before
