"""Forces between bodies that VMAS passes over while no env of the batch has the two near each other."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor


class Contacts:
    """Which pairs of bodies the simulator passes over in a step, and a stop on their forces.

    It asks ``world.collides(a, b)``, whether the bodies' outer circles meet in any env, and goes on to the next pair
    where they do not. Between spheres the force is zero then. Lines and boxes push a little beyond their circles, so
    there the graph must pass over the same pairs.
    """

    def __init__(self) -> None:
        self._near: dict[frozenset[int], Tensor] = {}

    def ask(self, frame: FrameType, condition: Tensor) -> None:
        """Keep the condition that ``frame``, a call of ``collides`` from the simulator, decides on."""
        bodies = [frame.f_locals[name] for name in ("a", "b")]
        if any(type(body.shape).__name__ != "Sphere" for body in bodies):
            self._near[frozenset(map(id, bodies))] = condition

    def stop(self, func: Callable[..., Any], frame: FrameType, before: Any, after: Any) -> Any:
        """``after``, the sum of forces that ``frame`` computes by ``func``, or ``before`` where it passes over it."""
        joint = frame.f_back is not None and "joint" in frame.f_back.f_code.co_name
        if frame.f_code.co_name != "update_env_forces" or joint or func.__name__ not in ("add", "__add__"):
            return after
        near = self._near.get(frozenset(id(frame.f_locals[name]) for name in ("entity_a", "entity_b")))
        return after if near is None else torch.where(near, after, before)
