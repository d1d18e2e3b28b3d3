"""The state of a VMAS simulation as a TensorDict, so that its step becomes a function of tensors."""

from __future__ import annotations

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
# Views that only some steps rely on.
STEPS = 4


class TensorState:
    """Reads and writes every tensor with one row per env that the world holds, and those that a step changes.

    The TensorDict has ``("world", path)`` for each such place (those that always hold one and the same tensor, which
    is written to, count once), ``elapsed`` ``[n_envs, 1]`` and, under ``last``, what the agents last saw.

    Args:
        simulation: it is stepped and reset a few times to find what changes, and then put back as it was (one that was
            never reset is left after a reset).
        random_actions: draws actions from the program's generators, one tensor per group.

    Raises:
        TraceError: where the scenario keeps state out of reach, or changing state in Python, or in tensors for the
            whole batch that a reset changes, or in views of other tensors that a step relies on, or in what only its
            first step creates, or draws from Python's or numpy's generator in a step; the message names it.
    """

    def __init__(self, simulation: VmasSimulation, random_actions: Callable[[], Sequence[Tensor]]):
        self.simulation = simulation
        unreadable = WorldState.read(simulation.world).unreadable()
        if unreadable:
            raise TraceError(f"keeps state out of reach: {', '.join(unreadable[:3])}")
        if simulation.last is None:
            stream = simulation.random_stream.state_dict()
            simulation.reset()
            simulation.random_stream.load_state_dict(stream)
        there = _paths(WorldState.read(simulation.world))
        with simulation.unchanged():
            with simulation.unchanged(keep_new=False):
                first = self._one_step(random_actions)
            with simulation.unchanged():
                # What the first step creates is another thing then than in the step above.
                simulation.reset()
                _random_step(simulation, random_actions, draws=2)
                self.places = self._find_places(random_actions)
            self._check_creation(there, first, random_actions)
            for change in (lambda: _random_step(simulation, random_actions), simulation.reset):
                self._check_shared_memory(change)
            self._check_views(random_actions)

    def _find_places(self, random_actions: Callable[[], Sequence[Tensor]]) -> dict[str, list[str]]:
        simulation, world, n_envs = self.simulation, self.simulation.world, self.simulation.batch_size[0]
        observed: list[_Change] = []

        def observe(change: Callable[[], object]) -> _Change:
            observed.append(_observed(world, change))
            return observed[-1]

        def one_step() -> TensorDict:
            return _random_step(simulation, random_actions)

        first = _copied(observe(one_step).after)
        stream = simulation.random_stream.state_dict()
        step = observe(one_step)
        stepped = _copied(step.after)
        _check_generators(stream, simulation.random_stream.state_dict())
        reset, by_step, by_reset = stepped, step.written, set[str]()
        changed_by_reset: set[str] = set()
        for _ in range(RESETS):
            change = observe(simulation.reset)
            before, reset = reset, _copied(change.after)
            _check_python(before, reset)
            by_reset |= change.written
            changed_by_reset |= _changed(before, reset)
        step = observe(one_step)
        by_step, again = by_step | step.written, step.after
        _check_python(first, stepped)
        _check_python(reset, again)
        by_step |= _changed(first, stepped) | _changed(reset, again)
        # What a step has not changed yet, it may later.
        of_batch = {path for path in changed_by_reset | by_step & by_reset if not has_rows(again.values[path], n_envs)}
        if of_batch:
            raise TraceError(f"a reset changes {min(of_batch)}, one value for the whole batch")
        # For places that are empty before the first step; `_check_views` tells where it matters what they hold.
        self.templates = {path: value.clone() for path, value in again.values.items()}
        return _places(
            {path for path, value in again.values.items() if has_rows(value, n_envs) or path in by_step}, observed
        )

    def _one_step(self, random_actions: Callable[[], Sequence[Tensor]]) -> _Outcome:
        """What a step gives and leaves; the simulation stays as it is, but for what the step creates."""
        with self.simulation.unchanged():
            output = _random_step(self.simulation, random_actions).clone().flatten_keys()
            return _Outcome(dict(output.items()), _copied(WorldState.read(self.simulation.world)).values)

    def _check_creation(self, there: set[str], first: _Outcome, random_actions: Callable[[], Sequence[Tensor]]) -> None:
        """What only a first step creates must not matter to it, since a compiled step finds something there.

        Args:
            there: all paths before it.
            first: what it gave.
            random_actions: draws its actions.
        """
        created = _paths(WorldState.read(self.simulation.world)) - there
        if not created:
            return
        again = self._one_step(random_actions)
        if not (_same(first.output, again.output) and _same(first.values, again.values)):
            raise TraceError(f"creates {min(created)} in its first step, which goes by whether it is there")

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
        """Steps must do the same where each place has a tensor of its own, as ``write`` leaves it."""
        outcomes: list[TensorDict] = []
        for written in (False, True):
            with self.simulation.unchanged():
                self.simulation.reset()
                steps = TensorDict()
                for number in range(STEPS):
                    if written:
                        self.write(self.read().clone())
                    output = _random_step(self.simulation, random_actions)
                    steps[str(number)] = TensorDict({"output": output, "state": self.read()}).clone()
                outcomes.append(steps)
        direct, by_way_of_write = (outcome.flatten_keys() for outcome in outcomes)
        for name, value in direct.items():
            if not same_numbers(value, by_way_of_write[name]):
                path = name.partition(".")[2]
                raise TraceError(f"keeps one tensor's numbers in another one, a view of it: {path} depends on that")

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


def _random_step(
    simulation: VmasSimulation, random_actions: Callable[[], Sequence[Tensor]], draws: int = 1
) -> TensorDict:
    """A step with the last of so many draws of actions; the generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        for _ in range(draws - 1):
            random_actions()
        return simulation.step(random_actions())


@dataclass(frozen=True)
class _Change:
    """What a step or a reset does to a world's tensors.

    Args:
        before: the tensors, by path.
        after: the whole state after it.
        written: the paths whose tensor is another one, or was written to, whether its numbers are other ones or not.
        held: by path, the identity of the tensor after it.
        shared: the paths of each tensor that several held before it, and that was written to.
    """

    before: dict[str, Tensor]
    after: WorldState
    written: set[str]
    held: dict[str, int]
    shared: list[set[str]]


@dataclass(frozen=True)
class _Outcome:
    """What a step gives, and the tensors that it leaves, by path."""

    output: dict[str, Tensor]
    values: dict[str, Tensor]


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
    holders: dict[int, set[str]] = {}
    for path, value in before.items():
        if _version(value) != versions[path]:
            holders.setdefault(id(value), set()).add(path)
    shared = [paths for paths in holders.values() if len(paths) > 1]
    return _Change(before, after, written, {path: id(value) for path, value in after.values.items()}, shared)


def _places(paths: set[str], observed: Sequence[_Change]) -> dict[str, list[str]]:
    """Places by the first of those that hold one tensor: each alone, but where that tensor is written to.

    Places that hold one tensor at one moment may hold different ones at another; a tensor that nobody writes to may as
    well be several. One that is written to must be one for all who hold it, so these must always hold the same one.
    """
    held = {path: tuple(change.held.get(path) for change in observed) for path in sorted(paths)}
    merged = set()
    for together in (shared for change in observed for shared in change.shared):
        ways = {held[path] for path in together & paths}
        if len(ways) > 1:
            raise TraceError(f"writes into a tensor that is in several places for a while: {min(together)}")
        merged |= ways
    first: dict[object, str] = {}
    places: dict[str, list[str]] = {}
    for path, way in held.items():
        places.setdefault(first.setdefault(way, path) if way in merged else path, []).append(path)
    return places


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


def _paths(state: WorldState) -> set[str]:
    return state.values.keys() | state.python.keys()


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(same_numbers(one[key], other[key]) for key in one)


def _check_python(before: WorldState, after: WorldState) -> None:
    changed = before.changed_python(after) or sorted(before.values.keys() ^ after.values.keys())
    if changed:
        raise TraceError(f"keeps changing state in Python: {', '.join(changed[:3])}")


def _check_generators(before: StateDict, after: StateDict) -> None:
    if before["python"] != after["python"] or not torch.equal(before["numpy"][1], after["numpy"][1]):
        raise TraceError("a step draws from Python's or numpy's random generator")
