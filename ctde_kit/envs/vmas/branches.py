"""Which branches on data in VMAS's simulator a graph may pass over, and which it must follow."""

from __future__ import annotations

from pathlib import Path
from types import FrameType

import torch
import vmas.simulator
from torch import Tensor

from ctde_kit.graph.torch_calls import TorchFunction

_SIMULATOR = str(Path(vmas.simulator.__file__).parent)


class VmasShortcuts:
    """The simulator's branches on ``any()`` and ``all()``, for the trace of one step.

    One of them changes results: ``world.collides(a, b)``, whether the bodies' outer circles meet in any env.

    - The simulator asks it before it computes the forces between two bodies, and passes over the pair where they do
      not meet. Between spheres the force is zero then. Lines and boxes push a little beyond their circles, so there the
      graph must pass over the same pairs.
    - A scenario that asks it makes an env's reward depend on the other envs. The graph keeps this dependence: the body
      of the scenario's ``if`` is run, and what it writes is undone where the condition is false.
    """

    def __init__(self) -> None:
        self._near: dict[frozenset[int], Tensor] = {}

    def covers(self, frame: FrameType) -> bool:
        """Whether ``frame`` runs the simulator's code."""
        return frame.f_code.co_filename.startswith(_SIMULATOR)

    def guarded(self, frame: FrameType, condition: Tensor) -> FrameType | None:
        """The scenario's frame whose ``if`` asks ``collides``."""
        caller = frame.f_back
        if frame.f_code.co_name != "collides" or caller is None:
            return None
        if caller.f_code.co_filename != frame.f_code.co_filename:
            return caller
        bodies = [frame.f_locals[name] for name in ("a", "b")]
        if any(type(body.shape).__name__ != "Sphere" for body in bodies):
            self._near[frozenset(map(id, bodies))] = condition
        return None

    def correct(self, function: TorchFunction, frame: FrameType, before: object, after: object) -> object:
        """``after``, the sum of forces that ``frame`` computes, or ``before`` for a pair that is passed over."""
        joint = frame.f_back is not None and "joint" in frame.f_back.f_code.co_name
        if frame.f_code.co_name != "update_env_forces" or joint or function.__name__ not in ("add", "__add__"):
            return after
        near = self._near.get(frozenset(id(frame.f_locals[name]) for name in ("entity_a", "entity_b")))
        if near is None:
            return after
        assert isinstance(before, Tensor)
        assert isinstance(after, Tensor)
        return torch.where(near, after, before)
