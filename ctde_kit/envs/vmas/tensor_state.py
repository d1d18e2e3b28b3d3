"""The state of a VMAS simulation as a TensorDict, so that its step becomes a function of tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.simulation import VmasSimulation
from ctde_kit.envs.vmas.tensor_copies import overlapping
from ctde_kit.envs.vmas.world_state import WorldState, has_rows, same_numbers
from ctde_kit.graph import TraceError
from ctde_kit.protocols import StateDict

WORLD, ELAPSED, LAST = "world", "elapsed", "last"
# A goal drawn for the whole batch may stay the same by chance, but not this many times in a row.
RESETS = 20


class TensorState:
    """Reads and writes every tensor with one row per env that the world holds, and those that a step changes.

    The TensorDict has ``("world", path)`` for each such place (places that hold one and the same tensor count once),
    ``elapsed`` ``[n_envs, 1]`` and, under ``last``, what the agents last saw.

    Args:
        simulation: it is stepped and reset a few times to find what changes, and then put back as it was (one that was
            never reset is left after these steps).
        random_actions: draws actions from the program's generators, one tensor per group.

    Raises:
        TraceError: where the scenario keeps state out of reach, or changing state in Python, or in tensors for the
            whole batch that a reset changes, or in views of other tensors that a step relies on, or draws from Python's
            or numpy's generator in a step; the message names it.
    """

    def __init__(self, simulation: VmasSimulation, random_actions: Callable[[], Sequence[Tensor]]):
        self.simulation = simulation
        unreadable = WorldState.read(simulation.world).unreadable()
        if unreadable:
            raise TraceError(f"keeps state out of reach: {', '.join(unreadable[:3])}")
        with contextlib.nullcontext() if simulation.last is None else simulation.unchanged():
            if simulation.last is None:
                simulation.reset()
            self.places = self._find_places(random_actions)
            for change in (lambda: _random_step(simulation, random_actions), simulation.reset):
                self._check_shared_memory(change)
            self._check_views(random_actions)

    def _find_places(self, random_actions: Callable[[], Sequence[Tensor]]) -> dict[str, list[str]]:
        simulation, world, n_envs = self.simulation, self.simulation.world, self.simulation.batch_size[0]
        _random_step(simulation, random_actions)
        first = _copied(WorldState.read(world))
        stream = simulation.random_stream.state_dict()
        step = _observed(world, lambda: _random_step(simulation, random_actions))
        stepped = _copied(step.after)
        _check_generators(stream, simulation.random_stream.state_dict())
        reset, by_step, by_reset = stepped, step.written, set[str]()
        changed_by_reset: set[str] = set()
        for _ in range(RESETS):
            change = _observed(world, simulation.reset)
            before, reset = reset, _copied(change.after)
            _check_python(before, reset)
            by_reset |= change.written
            changed_by_reset |= _changed(before, reset)
        step = _observed(world, lambda: _random_step(simulation, random_actions))
        by_step, again = by_step | step.written, step.after
        _check_python(first, stepped)
        _check_python(reset, again)
        by_step |= _changed(first, stepped) | _changed(reset, again)
        # What a step has not changed yet, it may later.
        of_batch = {path for path in changed_by_reset | by_step & by_reset if not has_rows(again.values[path], n_envs)}
        if of_batch:
            raise TraceError(f"a reset changes {min(of_batch)}, one value for the whole batch")
        self.templates = {path: torch.zeros_like(value) for path, value in again.values.items()}
        places: dict[int, list[str]] = {}
        for path, value in again.values.items():
            if has_rows(value, n_envs) or path in by_step:
                places.setdefault(id(value), []).append(path)
        return {paths[0]: paths for paths in places.values()}

    def _check_shared_memory(self, change: Callable[[], object]) -> None:
        """No tensor may be written to that shares memory with another one, where both stay: ``write`` parts them."""
        with self.simulation.unchanged():
            observed = _observed(self.simulation.world, change)
        after = observed.after.values
        stayed = {id(value) for value in observed.before.values()}
        paths = {id(value): path for path, value in after.items() if id(value) in stayed}
        for group in overlapping({key: after[path] for key, path in paths.items()}):
            if len(group) > 1 and not observed.written.isdisjoint(paths[key] for key in group):
                raise TraceError(f"keeps one tensor's numbers in another one, a view of it: {paths[group[0]]}")

    def _check_views(self, random_actions: Callable[[], Sequence[Tensor]]) -> None:
        """A step must do the same where each place has a tensor of its own, as ``write`` leaves it."""
        outcomes: list[TensorDict] = []
        for written in (False, True):
            with self.simulation.unchanged():
                if written:
                    self.write(self.read().clone())
                output = _random_step(self.simulation, random_actions)
                outcomes.append(TensorDict({"output": output, "state": self.read()}).clone())
        direct, by_way_of_write = (outcome.flatten_keys() for outcome in outcomes)
        for name, value in direct.items():
            if not same_numbers(value, by_way_of_write[name]):
                raise TraceError(f"keeps one tensor's numbers in another one, a view of it: {name} depends on that")

    def read(self) -> TensorDict:
        """The state at this moment, without copying it."""
        simulation = self.simulation
        assert simulation.last is not None
        values = WorldState.read(simulation.world).values
        return TensorDict(
            {
                # Before the first step some places are empty.
                WORLD: TensorDict({path: values.get(path, self.templates[path]) for path in self.places}, []),
                ELAPSED: simulation.elapsed,
                LAST: TensorDict(dict(simulation.last.items()), []),
            },
            [],
        )

    def write(self, state: TensorDictBase) -> None:
        """Take over a state, without copying it."""
        simulation = self.simulation
        world = WorldState.read(simulation.world)
        slots = {**{path: slot for path, (slot, _) in world.python.items()}, **world.tensors}
        for path, places in self.places.items():
            for place in places:
                if place in slots:
                    slots[place].set(state[WORLD, path])
        simulation.elapsed = state[ELAPSED]
        last = state.get(LAST)
        simulation.last = TensorDict(dict(last.items()), simulation.batch_size, device=simulation.device)


def _random_step(simulation: VmasSimulation, random_actions: Callable[[], Sequence[Tensor]]) -> TensorDict:
    with torch.random.fork_rng(devices=[]):
        return simulation.step(random_actions())


@dataclass(frozen=True)
class _Change:
    """What a step or a reset does to a world's tensors.

    Args:
        before: the tensors, by path.
        after: the whole state after it.
        written: the paths whose tensor is another one, or was written to, whether its numbers are other ones or not.
    """

    before: dict[str, Tensor]
    after: WorldState
    written: set[str]


def _observed(world: Environment, change: Callable[[], object]) -> _Change:
    before = WorldState.read(world).values
    versions = {path: _version(value) for path, value in before.items()}
    change()
    after = WorldState.read(world)
    written = {
        path
        for path, value in after.values.items()
        if value is not before.get(path) or _version(value) != versions[path]
    }
    return _Change(before, after, written)


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; torch does not count that in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def _copied(state: WorldState) -> WorldState:
    values = {path: value.clone() for path, value in state.values.items()}
    return replace(state, values=values)


def _changed(before: WorldState, after: WorldState) -> set[str]:
    def same(path: str) -> bool:
        old, new = before.values.get(path), after.values[path]
        return old is not None and same_numbers(old, new)

    return {path for path in after.values if not same(path)}


def _check_python(before: WorldState, after: WorldState) -> None:
    changed = before.changed_python(after) or sorted(before.values.keys() ^ after.values.keys())
    if changed:
        raise TraceError(f"keeps changing state in Python: {', '.join(changed[:3])}")


def _check_generators(before: StateDict, after: StateDict) -> None:
    if before["python"] != after["python"] or not torch.equal(before["numpy"][1], after["numpy"][1]):
        raise TraceError("a step draws from Python's or numpy's random generator")
