"""A limit for VMAS's search for a free place, which looks forever where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from vmas.simulator.core import World
from vmas.simulator.scenario import BaseScenario
from vmas.simulator.utils import ScenarioUtils

from ctde_kit.envs.vmas.argument_names import argument_names
from ctde_kit.envs.vmas.scenario_arguments import scenario_name
from ctde_kit.errors import UserError

MOST_TRIES = 20_000
"""Tries in a row in which no further env of the batch finds a place; they take about two seconds."""
# How scenarios call the arguments by which their field grows.
_FIELD = ("spawning", "semidim", "pos_range", "world_size")


@contextlib.contextmanager
def limited_spawning(scenario: BaseScenario) -> Iterator[None]:
    """Inside the block ``ScenarioUtils`` gives up after ``MOST_TRIES`` tries in a row that help no env of the batch.

    Places are VMAS's own, bit for bit.

    Raises:
        UserError: where an entity finds none; it names the arguments of ``scenario`` that say how large the field is.
    """

    def find(
        occupied_positions: Tensor,
        env_index: int | None,
        world: World,
        min_dist_between_entities: float,
        x_bounds: tuple[float, float],
        y_bounds: tuple[float, float],
        disable_warn: bool = False,
    ) -> Tensor:
        position: Any = None
        tries, crowded = 0, -1
        while tries < MOST_TRIES:
            proposed = _proposed(world, 1 if env_index is not None else world.batch_dim, x_bounds, y_bounds)
            position = proposed if position is None else position
            if occupied_positions.shape[1] == 0:
                return position
            near = torch.cdist(occupied_positions, position) < min_dist_between_entities
            overlaps = near.squeeze(2).any(dim=1)
            without_place = int(overlaps.sum())
            if not without_place:
                return position
            position[overlaps] = proposed[overlaps]
            tries, crowded = (tries + 1 if without_place == crowded else 0), without_place
        raise UserError(
            f"{scenario_name(scenario)}: no place was found in {MOST_TRIES} tries for one more of "
            f"its entities, {min_dist_between_entities:g} apart from {occupied_positions.shape[1]} others with x in "
            f"{list(x_bounds)} and y in {list(y_bounds)}; give it fewer agents, or {_larger(scenario)}"
        )

    with mock.patch.object(ScenarioUtils, "find_random_pos_for_entity", staticmethod(find)):
        yield


def _proposed(world: World, n_envs: int, x_bounds: tuple[float, float], y_bounds: tuple[float, float]) -> Tensor:
    axes = [
        torch.empty((n_envs, 1, 1), device=world.device, dtype=torch.float32).uniform_(*bounds)
        for bounds in (x_bounds, y_bounds)
    ]
    return torch.cat(axes, dim=2)


def _larger(scenario: BaseScenario) -> str:
    names = sorted(argument_names(type(scenario)) or ())
    field = [name for name in names if any(part in name for part in _FIELD)]
    return f"a larger {' and '.join(field)}" if field else "a larger field"
