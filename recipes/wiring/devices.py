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


def check_computes_on_cpu(device: str) -> None:
    """Raise ``UserError`` where processes of Ray would have to compute on a GPU, of which none has a share."""
    if resolve_device(device) != "cpu":
        raise UserError(
            f"device={device}: with distributed=ray all processes compute on the CPU; give device=cpu, or leave "
            "distributed=ray out"
        )
