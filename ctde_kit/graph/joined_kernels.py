"""The kernels of a graph in few files: to start the compiler and to link take longer than compiling most of them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ctde_kit.graph.cpp_compiler import HEADER
from ctde_kit.graph.replaced import replaced

# The same on all machines, or one would not find the machine code of another. They are compiled at the same time.
MOST_FILES = 4
Load = Callable[[], ModuleType]


@dataclass
class _Kernel:
    """The C++ of one kernel, with the Python module that calls it."""

    code: str
    submit: object
    load: Load | None = None


@contextlib.contextmanager
def joined_kernels() -> Iterator[None]:
    """While it lasts, inductor compiles at most ``MOST_FILES`` files per graph, where it compiles one per kernel.

    >>> from ctde_kit.graph.joined_kernels import joined_kernels
    >>> with joined_kernels():
    ...     pass
    """
    # Inductor takes as long to import as torch itself, and a run without compiling never needs it.
    codecache: Any = importlib.import_module("torch._inductor.codecache")
    inductor: Any = importlib.import_module("torch._inductor.async_compile")
    compiling = inductor.AsyncCompile
    if not hasattr(compiling, "_wait_futures"):  # another version of torch
        yield
        return
    kernels, usual_wait = codecache.CppPythonBindingsCodeCache, compiling.wait
    joining = {"load_async": staticmethod(_Joining(kernels.load_async).load_async)}
    joined = type("JoinedKernels", (kernels,), joining)

    def load(self: Any, argument_types: list[str], code: str) -> object:
        inductor.kernel_code_log.info("CPP+Bindings Kernel:\n%s", code)
        submit = self.submit if inductor.get_compile_threads() > 1 else None
        return codecache.LambdaFuture(joined.load_pybinding_async(argument_types, code, submit_fn=submit))

    def wait(self: Any, kernels_by_name: dict[str, Any]) -> None:
        self._wait_futures(kernels_by_name)  # which the usual one does with more than one thread alone
        usual_wait(self, kernels_by_name)

    with replaced(compiling, "cpp_pybinding", load), replaced(compiling, "wait", wait):
        yield


class _Joining:
    """Waits until the first kernel of a graph is needed, when all are known."""

    def __init__(self, usual: Callable[..., Load]):
        self.usual, self.waiting = usual, list[_Kernel]()

    def load_async(self, code: str, device: str = "cpu", submit_fn: object = None, **options: object) -> Load:
        """In place of inductor's function: the function that it returns gives the kernel's module."""
        is_usual = device == "cpu" and not any(options.values()) and _includes(code) <= _includes(HEADER)
        if not is_usual:
            return self.usual(code, device, submit_fn=submit_fn, **options)
        kernel = _Kernel(code, submit_fn)
        self.waiting.append(kernel)

        def load() -> ModuleType:
            if kernel.load is None:
                self._compile()
            assert kernel.load is not None
            return kernel.load()

        return load

    def _compile(self) -> None:
        kernels, self.waiting = self.waiting, []
        for share in _shares(kernels):
            load = self.usual(_one_file(share), submit_fn=share[0].submit)
            for number, kernel in enumerate(share):
                kernel.load = functools.partial(_module, load, number)


def _includes(code: str) -> set[str]:
    return set(re.findall(r"#include.*", code))


def _shares(kernels: list[_Kernel]) -> list[list[_Kernel]]:
    """Kernels for each file, about as much code in each."""
    shares: list[list[_Kernel]] = [[] for _ in range(min(MOST_FILES, len(kernels)))]
    for kernel in sorted(kernels, key=lambda kernel: -len(kernel.code)):
        min(shares, key=lambda share: sum(len(other.code) for other in share)).append(kernel)
    return shares


def _one_file(kernels: list[_Kernel]) -> str:
    """The kernels one after the other, each in a namespace, with numbers in the names that namespaces do not part.

    A single kernel stays as it is.
    """
    if len(kernels) == 1:
        return kernels[0].code
    parts = [HEADER]
    for number, kernel in enumerate(kernels):
        names = {"kernel": f"kernel_{number}", "PyInit_kernel": _initializer(number)}
        parts += [f"#define {name} {numbered}" for name, numbered in names.items() if name != numbered]
        parts += [f"namespace kernel_namespace_{number} {{", kernel.code, "}"]
        parts += [f"#undef {name}" for name in names]
    return "\n".join(parts)


def _initializer(number: int) -> str:
    """The function by which Python finds a module in the file; inductor itself loads the first."""
    return f"PyInit_kernel_{number}" if number else "PyInit_kernel"


def _known_to_inductor() -> Any:
    """The names of modules that inductor removes with its caches."""
    codecache: Any = importlib.import_module("torch._inductor.codecache")
    return getattr(codecache.CppPythonBindingsCodeCache, "_loaded_module_names", set())


def _module(load: Load, number: int) -> ModuleType:
    first = load()
    if not number:
        return first
    name = f"{first.__name__}_{number}"
    if name not in sys.modules:
        assert first.__file__ is not None
        spec = importlib.util.spec_from_file_location(name, first.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
        _known_to_inductor().add(name)
    return sys.modules[name]
