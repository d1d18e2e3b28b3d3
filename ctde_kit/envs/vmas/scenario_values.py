"""What a scenario's methods give VMAS: tensors, and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import traceback
from collections.abc import Iterator
from pathlib import Path

import torchrl.envs
import vmas.simulator

from ctde_kit.errors import UserError

_SIMULATOR = Path(vmas.simulator.__path__[0])
_ASKING = [_SIMULATOR, Path(torchrl.envs.__path__[0]), Path(__file__).parents[2], Path(contextlib.__file__)]


@contextlib.contextmanager
def only_tensors(scenario: str, n_envs: int) -> Iterator[None]:
    """Inside the block VMAS asks a scenario for values; one that is no tensor becomes a ``UserError`` that says so."""
    try:
        yield
    except AttributeError as error:
        # VMAS copies each or what it has inside, and TorchRL asks for the shape of infos.
        places = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        inside = list(itertools.dropwhile(lambda place: not place.is_relative_to(_SIMULATOR), places)) or places
        asked = error.name in ("clone", "items", "shape")
        # A scenario's own line among them: it is that line's mistake.
        if not asked or not all(any(map(place.is_relative_to, _ASKING)) for place in inside):
            raise
        raise UserError(
            f"scenario {scenario!r}: expected tensors with one row for each of {n_envs} environments from observation, "
            f"reward, done and info, found {type(error.obj).__name__}; return tensors"
        ) from error
