"""What a scenario's methods give VMAS: tensors, and nothing else."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import torchrl.envs
import vmas.simulator

from ctde_kit.errors import UserError

_ASKING = [Path(place) for module in (torchrl.envs, vmas.simulator) for place in module.__path__]


@contextlib.contextmanager
def only_tensors(scenario: str, n_envs: int) -> Iterator[None]:
    """Inside the block VMAS asks a scenario for values; one that is no tensor becomes a ``UserError`` that says so."""
    try:
        yield
    except AttributeError as error:
        # VMAS copies each or what it has inside, and TorchRL asks for the shape of infos.
        asked = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if error.name not in ("clone", "items", "shape") or not any(map(asked.is_relative_to, _ASKING)):
            raise
        raise UserError(
            f"scenario {scenario!r}: expected tensors with one row for each of {n_envs} environments from observation, "
            f"reward, done and info, found {type(error.obj).__name__}; return tensors"
        ) from error
