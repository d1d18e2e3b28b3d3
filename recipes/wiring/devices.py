"""Where a run computes."""

from __future__ import annotations

import torch

from ctde_kit.errors import UserError


def resolve_device(device: str) -> str:
    """The device to compute on: ``auto`` is ``cuda`` where there is one, else ``cpu``.

    Raises:
        UserError: for ``cuda`` where there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: PyTorch sees no CUDA device; use device=cpu, or install a CUDA build of torch")
    return device
