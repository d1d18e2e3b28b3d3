"""C++ kernels of operations; ``ctde_kit.graph`` puts them into compiled graphs, and no other caller needs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class CppKernel:
    """A C++ form of an operation on CPU tensors.

    Args:
        operation: one of ``torch.ops``, with the same arguments and results.
        source: the C++ file whose functions it calls.
        dtypes: of the tensors that it takes.
    """

    operation: Any
    source: Path
    dtypes: tuple[torch.dtype, ...]


CPP_KERNELS: dict[Any, CppKernel] = {}
"""For each operation of ``torch.ops``, the kernel that replaces it in a compiled graph on a CPU."""
