"""Types of the calls of torch that a traced function makes; functions, arguments and results may be anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

TorchFunction: TypeAlias = Callable[..., Any]
"""A function of torch or a method of ``Tensor``."""
Arguments: TypeAlias = tuple[Any, ...]
"""Arguments by position, or the parts of an index."""
Options: TypeAlias = dict[str, Any]
"""Arguments by name."""
