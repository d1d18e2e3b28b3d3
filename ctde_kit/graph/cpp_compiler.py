"""Prepares the C++ compiler for kernels: the vector instructions that it knows, and headers that it parses once."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import platform
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctde_kit.graph.replaced import replaced

# What inductor puts into the file of each kernel; to parse it takes longer than to compile most kernels.
HEADER = """\
#include <torch/csrc/inductor/cpp_prefix.h>
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sstream>
#include <cstdlib>
#include <cerrno>
"""
_trying = threading.Lock()
# A process that is forked while the compiler starts would hold the pipe that the compiler writes to, for as long as it
# lives, so forks wait until the compiler is done.
_compiling = threading.Lock()
os.register_at_fork(before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release)


def prepare_compiler() -> threading.Thread:
    """Begin, in the background, what the compiler needs for all kernels: it takes some ten seconds, once per machine.

    The parsed headers take 160 MB beside inductor's code. Without this call kernels are compiled all the same, each
    with the headers that it names.

    Returns:
        The thread that waits for the compiler, which need not be joined.

    >>> from ctde_kit.graph.cpp_compiler import prepare_compiler
    >>> prepare_compiler().join()
    """
    # Two threads that import it at once would find modules half done.
    importlib.import_module("torch._inductor.codecache")

    def prepare() -> None:
        # Where it fails, kernels say what is wrong with the compiler.
        with _compiling, contextlib.suppress(Exception):
            _parse_header()

    thread = threading.Thread(target=prepare, name="ctde_kit: prepares the compiler", daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def prepared_compiler() -> Iterator[None]:
    """While it lasts, inductor uses what ``prepare_compiler`` has made, and tries only the best vector instructions.

    By itself it tries all that the processor has, for two seconds each, to take the first that works.

    >>> from ctde_kit.graph.cpp_compiler import prepared_compiler
    >>> with prepared_compiler():
    ...     pass
    """
    from torch._inductor import codecache, cpu_vec_isa

    def header(device: str) -> str | None:
        return HEADER if device == "cpu" and _parsed(header_file()).exists() else None

    with contextlib.ExitStack() as stack:
        if _takes_the_best():
            stack.enter_context(replaced(cpu_vec_isa, "valid_vec_isa_list", _best_vec_isa))
        if _has_gcc():
            kernels = codecache.CppPythonBindingsCodeCache
            stack.enter_context(replaced(kernels, "_get_uncompiled_header", header))
            stack.enter_context(replaced(codecache, "_precompile_header", lambda *_, **__: str(header_file())))
        yield


def _takes_the_best() -> bool:
    """Whether inductor would take the best of the vector instructions that work."""
    return platform.machine() in ("x86_64", "AMD64") and "ATEN_CPU_CAPABILITY" not in os.environ


def _best_vec_isa() -> list[Any]:
    with _trying:  # or two threads try the same
        return _first_that_works()


@functools.cache
def _first_that_works() -> list[Any]:
    from torch._inductor import cpu_vec_isa

    flags = cpu_vec_isa.x86_isa_checker()
    known = (isa for isa in cpu_vec_isa.supported_vec_isa_list if all(flag in flags for flag in str(isa).split()))
    best = next((isa for isa in known if isa), None)
    return [] if best is None else [best]


@functools.cache
def _has_gcc() -> bool:
    """Where a parsed header does not fit, gcc parses it again and clang gives up."""
    from torch._inductor.cpp_builder import is_gcc

    return is_gcc()


def header_file() -> Path:
    """Where the headers of kernels belong, for this compiler, processor, and version of torch."""
    from torch._inductor.codecache import torch_key
    from torch._inductor.cpp_builder import CppBuilder, get_compiler_version_info, get_cpp_compiler
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    command = CppBuilder("o", "i", _options()).get_command_line()
    key = hashlib.sha256(torch_key())
    key.update(repr((HEADER, command, get_compiler_version_info(get_cpp_compiler()), sys.version)).encode())
    return Path(cache_dir()) / "ctde_kit_headers" / f"{key.hexdigest()}.h"


def _options(precompiling: bool = False) -> Any:
    """The options with which inductor compiles kernels."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache
    from torch._inductor.cpp_builder import CppTorchDeviceOptions
    from torch._inductor.cpu_vec_isa import invalid_vec_isa, pick_vec_isa

    vec_isa = next(iter(_best_vec_isa()), invalid_vec_isa) if _takes_the_best() else pick_vec_isa()
    flags = CppPythonBindingsCodeCache.cpp_compile_command_flags
    return CppTorchDeviceOptions(vec_isa=vec_isa, device_type="cpu", precompiling=precompiling, **flags)


def _parsed(file: Path) -> Path:
    return file.with_name(f"{file.name}.gch")


def _parse_header() -> None:
    from torch._inductor.codecache import get_lock_dir
    from torch._inductor.cpp_builder import CppBuilder
    from torch.utils._filelock import FileLock

    file = header_file()
    if not _has_gcc() or _parsed(file).exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(os.path.join(get_lock_dir(), f"{file.name}.lock")):
        if not _parsed(file).exists():
            file.write_text(HEADER)
            # Under another name, so that no one reads half of it.
            unfinished = CppBuilder(f"{file}.{os.getpid()}", str(file), _options(precompiling=True))
            unfinished.build()
            Path(unfinished.get_target_file_path()).replace(_parsed(file))
