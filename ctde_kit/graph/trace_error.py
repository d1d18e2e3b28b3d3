"""The error that says why a function cannot become a graph."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType

import torch

_HERE = f"{Path(__file__).parent}/"
_TORCH = f"{Path(torch.__file__).parent}/"


class TraceError(RuntimeError):
    """A function cannot be traced; the message says what it does and where, in one line.

    >>> import torch
    >>> from ctde_kit.graph import trace
    >>> trace(lambda inputs: [inputs[0] if inputs[0].sum() > 0 else -inputs[0]], [torch.ones(2)])
    Traceback (most recent call last):
        ...
    ctde_kit.graph.trace_error.TraceError: branches on a tensor at ...
    """


def calling_frame() -> FrameType:
    """The innermost frame that is neither torch's nor this package's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_HERE, _TORCH)):
        frame = frame.f_back
    assert frame is not None
    return frame


def site(frame: FrameType) -> str:
    """``file.py:line`` of a frame."""
    return f"{Path(_file(frame.f_code)).name}:{frame.f_lineno}"


def _file(code: CodeType) -> str:
    return code.co_filename
