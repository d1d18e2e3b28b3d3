"""Kernels are compiled with headers that were parsed before, and with the instructions that inductor would choose."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor_config
from torch._inductor import cpp_builder, cpu_vec_isa
from torch._inductor.utils import fresh_cache

from ctde_kit.graph import compile_graph, cpp_compiler, trace
from ctde_kit.graph.cpp_compiler import header_file, prepare_compiler, prepared_compiler

needs_gcc = pytest.mark.skipif(not cpp_builder.is_gcc(), reason="headers are parsed beforehand for gcc alone")


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A cache with parsed headers and nothing else."""
    with fresh_cache():
        prepare_compiler().join()
        yield header_file()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has the command of each call of the compiler."""
    found: list[str] = []
    build = cpp_builder.CppBuilder.build

    def recorded(self: cpp_builder.CppBuilder) -> None:
        found.append(self.get_command_line())
        build(self)

    monkeypatch.setattr(cpp_builder.CppBuilder, "build", recorded)
    return found


def compile_and_run(shift: float) -> None:
    x = torch.linspace(-1, 1, 40)
    compiled = compile_graph(trace(lambda inputs: [inputs[0].exp() + shift], [x]))
    torch.testing.assert_close(compiled([x])[0], x.exp() + shift)


@needs_gcc
def test_kernels_take_the_parsed_headers(prepared: Path, commands: list[str]) -> None:
    compile_and_run(1.5)
    (command,) = commands
    told = subprocess.run(f"{command} -H -o /dev/null", shell=True, capture_output=True, text=True).stderr
    # gcc marks the file that it took so; one that does not fit has an `x`.
    assert told.startswith(f"! {prepared}.gch")


@needs_gcc
def test_headers_are_parsed_once(prepared: Path) -> None:
    parsed = prepared.with_name(f"{prepared.name}.gch")
    before = parsed.stat()
    assert sorted(prepared.parent.iterdir()) == [prepared, parsed]
    prepare_compiler().join()
    compile_and_run(2.5)
    assert parsed.stat() == before


PROGRAM = """
import time
from ctde_kit.graph.cpp_compiler import header_file, prepare_compiler

prepare_compiler()
while not list(header_file().parent.glob("*.gch")):
    time.sleep(0.05)
print(header_file().parent)
"""


@needs_gcc
def test_a_process_that_ends_early_leaves_no_compiler_behind(prepared: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    folder = Path(subprocess.run(program, capture_output=True, text=True, check=True, env=environment).stdout.strip())
    assert folder.is_relative_to(tmp_path)
    sizes = [sum(file.stat().st_size for file in folder.glob("*.gch")) for _ in range(3) if not time.sleep(0.3)]
    assert len(set(sizes)) == 1
    assert not list(folder.glob("*.h.gch"))


@needs_gcc
def test_what_was_left_unfinished_is_removed(monkeypatch: pytest.MonkeyPatch, prepared: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cpp_compiler, "run", lambda command: Path(command[command.index("-o") + 1]).touch())
    file = header_file()
    file.parent.mkdir()
    file.with_name(f"{file.name}.1.gch").touch()
    prepare_compiler().join()
    assert sorted(file.parent.iterdir()) == [file, file.with_name(f"{file.name}.gch")]


def test_kernels_are_compiled_without_it(commands: list[str]) -> None:
    with fresh_cache():
        compile_and_run(3.5)
        assert "-include" not in commands[-1]
        assert not header_file().exists()


def test_headers_that_cannot_be_parsed_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_compiler, "HEADER", "#include <there/is/none.h>\n")
    with fresh_cache():
        prepare_compiler().join()
        assert not list(header_file().parent.glob("*.gch"))
        compile_and_run(4.5)


def test_the_instructions_are_those_of_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = cpu_vec_isa.pick_vec_isa()
    with prepared_compiler():
        assert cpu_vec_isa.pick_vec_isa() == usual
    with inductor_config.patch({"cpp.simdlen": 256}):
        usual = cpu_vec_isa.pick_vec_isa()
        with prepared_compiler():
            assert cpu_vec_isa.pick_vec_isa() == usual
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    usual = cpu_vec_isa.pick_vec_isa()
    with prepared_compiler():
        assert cpu_vec_isa.pick_vec_isa() == usual


def test_fewer_instructions_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Isa:
        def __init__(self, name: str, works: bool):
            self.name, self.works = name, works

        def __str__(self) -> str:
            return self.name

        def __bool__(self) -> bool:
            tried.append(self.name)
            return self.works

    isas = [Isa("absent", True), Isa("broken", False), Isa("best", True), Isa("good", True)]
    monkeypatch.setattr(cpu_vec_isa, "supported_vec_isa_list", isas)
    monkeypatch.setattr(cpu_vec_isa, "x86_isa_checker", lambda: ["broken", "best", "good"])
    monkeypatch.setattr(cpp_compiler, "_takes_the_best", lambda: True)
    cpp_compiler._first_that_works.cache_clear()
    try:
        with prepared_compiler():
            assert str(cpu_vec_isa.pick_vec_isa()) == "best"
        assert tried == ["broken", "best"]
    finally:
        cpp_compiler._first_that_works.cache_clear()


@needs_gcc
def test_inductor_is_left_as_it_was() -> None:
    from torch._inductor import codecache

    kernels = codecache.CppPythonBindingsCodeCache
    before = vars(kernels).copy(), codecache._precompile_header, cpu_vec_isa.valid_vec_isa_list
    with prepared_compiler():
        assert codecache._precompile_header is not before[1]
    assert (vars(kernels).copy(), codecache._precompile_header, cpu_vec_isa.valid_vec_isa_list) == before
