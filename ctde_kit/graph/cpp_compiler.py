"""Prepares the C++ compiler for kernels: the vector instructions that it knows, and headers that it parses once."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib
import os
import platform
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctde_kit.graph.background import run, starting
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


def prepare_compiler() -> threading.Thread:
    """Begin, in the background, what the compiler needs for all kernels: some ten seconds, once per cache directory.

    The parsed headers take 160 MB beside inductor's code. Without this call kernels are compiled all the same, each
    with the headers that it names. A process that is forked meanwhile may wait for a few seconds.

    Returns:
        The thread that waits for the compiler, which need not be joined.

    >>> from ctde_kit.graph.cpp_compiler import prepare_compiler
    >>> prepare_compiler().join()
    """
    # Two threads that import it at once would find modules half done.
    importlib.import_module("torch._inductor.codecache")

    def prepare() -> None:
        # Where it fails, kernels say what is wrong with the compiler.
        with contextlib.suppress(Exception):
            _parse_header()

    # Inductor's settings belong to a context.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(prepare,), name="ctde_kit: prepares the compiler", daemon=True)
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
        if _parses_headers():
            kernels = codecache.CppPythonBindingsCodeCache
            stack.enter_context(replaced(kernels, "_get_uncompiled_header", header))
            stack.enter_context(replaced(codecache, "_precompile_header", lambda *_, **__: str(header_file())))
        yield


def _takes_the_best() -> bool:
    """Whether inductor would take the best of the vector instructions that work."""
    from torch._inductor import config

    is_free = config.cpp.simdlen is None and "ATEN_CPU_CAPABILITY" not in os.environ
    return is_free and platform.machine() in ("x86_64", "AMD64")


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


def _parses_headers() -> bool:
    """Whether headers may be parsed beforehand: where they do not fit, gcc parses them again and clang gives up."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import is_gcc

    return config.cpp_cache_precompile_headers and is_gcc()


def header_file() -> Path:
    """Where the headers of kernels belong, for this compiler, its options, and the versions of torch and Python."""
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
    from torch._inductor.codecache import LOCK_TIMEOUT, get_lock_dir
    from torch._inductor.cpp_builder import CppBuilder
    from torch.utils._filelock import FileLock

    with starting():  # what follows asks the compiler what it is and can
        file, parses = header_file(), _parses_headers()
    if not parses or _parsed(file).exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(os.path.join(get_lock_dir(), f"{file.name}.lock"), timeout=LOCK_TIMEOUT):
        if not _parsed(file).exists():
            for unfinished in file.parent.glob(f"{file.name}.*.gch"):  # of processes that were killed
                unfinished.unlink()
            file.write_text(HEADER)
            # Under another name, so that no one reads half of it.
            builder = CppBuilder(f"{file}.{os.getpid()}", str(file), _options(precompiling=True))
            run(shlex.split(builder.get_command_line()))
            Path(builder.get_target_file_path()).replace(_parsed(file))
