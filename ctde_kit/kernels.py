"""Which operations have a kernel in C++, too; ``ctde_kit.graph`` puts it into compiled graphs, others need not know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class CppKernel:
    """A second form of an operation on CPU tensors.

    Args:
        operation: one of ``torch.ops``, with the same arguments and results.
        source: the C++ file whose functions it calls.
        dtypes: of the tensors that it takes.
    """

    operation: Any
    source: Path
    dtypes: tuple[torch.dtype, ...]


CPP_KERNELS: dict[Any, CppKernel] = {}
"""By the operation, also one of ``torch.ops``, that a compiled graph on a CPU replaces by it."""
