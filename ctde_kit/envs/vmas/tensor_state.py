"""The state of a VMAS env as a TensorDict, so that its step becomes a function of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.envs.vmas.world_state import WorldState
from ctde_kit.graph import TraceError

if TYPE_CHECKING:
    from ctde_kit.envs.vmas.env import VmasEnv

WORLD, ELAPSED, LAST = "world", "elapsed", "last"
# A goal drawn for the whole batch stays the same by chance; so often in a row it does not.
RESETS = 20


class TensorState:
    """Reads and writes every tensor with a row an env that the world holds, and those that a step changes.

    The TensorDict has ``("world", path)`` for each such place (places that hold one and the same tensor count once),
    ``elapsed`` ``[n_envs, 1]`` and, under ``last``, what the env last showed.

    Args:
        env: it is stepped and reset a few times to find what changes, and left as it was.

    Raises:
        TraceError: where the scenario keeps changing state in Python, or in tensors for the whole batch that a reset
            changes, or draws from Python's generators in a step; the message names it.
    """

    def __init__(self, env: VmasEnv):
        saved = env.state_dict()
        if env._last is None:
            env.reset()
        try:
            self.places = self._find(env)
        finally:
            if saved["last"] is not None:
                env.load_state_dict(saved)
        self.env = env

    def _find(self, env: VmasEnv) -> dict[str, list[str]]:
        _random_step(env)
        first = _copied(WorldState.read(env.world))
        stream = env.random_stream.state_dict()
        _random_step(env)
        stepped = _copied(WorldState.read(env.world))
        _check_generators(stream, env.random_stream.state_dict())
        reset = stepped
        by_reset: set[str] = set()
        for _ in range(RESETS):
            env._reset()
            before, reset = reset, _copied(WorldState.read(env.world))
            _check_python(before, reset)
            by_reset |= {path for path in _changed(before, reset) if not self._has_rows(env, reset.values[path])}
        _random_step(env)
        again = WorldState.read(env.world)
        _check_python(first, stepped)
        _check_python(reset, again)
        by_step = _changed(first, stepped) | _changed(reset, again)
        if by_reset:
            raise TraceError(f"a reset changes {sorted(by_reset)[0]}, one value for the whole batch")
        self.templates = {path: torch.zeros_like(value) for path, value in again.values.items()}
        groups: dict[int, list[str]] = {}
        for path, value in again.values.items():
            if self._has_rows(env, value) or path in by_step:
                groups.setdefault(id(value), []).append(path)
        return {paths[0]: paths for paths in groups.values()}

    @staticmethod
    def _has_rows(env: VmasEnv, value: Tensor) -> bool:
        return value.ndim > 0 and value.shape[0] == env.batch_size[0]

    def read(self) -> TensorDict:
        """The state at this moment, without copying it."""
        env = self.env
        assert env._last is not None
        values = WorldState.read(env.world).values
        return TensorDict(
            {
                # Before the first step some places are empty.
                WORLD: TensorDict({path: values.get(path, self.templates[path]) for path in self.places}, []),
                ELAPSED: env.elapsed,
                LAST: TensorDict(dict(env._last.items()), []),
            },
            [],
        )

    def write(self, state: TensorDictBase) -> None:
        """Take over a state."""
        env = self.env
        world = WorldState.read(env.world)
        slots = {**{path: slot for path, (slot, _) in world.python.items()}, **world.tensors}
        for path, places in self.places.items():
            for place in places:
                if place in slots:
                    slots[place].set(state[WORLD, path])
        env.elapsed = state[ELAPSED]
        last = state.get(LAST)
        env._last = TensorDict(dict(last.items()), env.batch_size, device=env.device)


def _random_step(env: VmasEnv) -> None:
    with torch.random.fork_rng(devices=[]):
        action = env.rand_action()
        env.plain_step([action.get((group, "action")) for group in env.group_map])


def _copied(state: WorldState) -> WorldState:
    values = {path: value.clone() for path, value in state.values.items()}
    return WorldState(state.tensors, values, dict(state.python), dict(state.names), dict(state.objects))


def _changed(before: WorldState, after: WorldState) -> set[str]:
    def same(path: str) -> bool:
        old, new = before.values.get(path), after.values[path]
        return old is not None and old.shape == new.shape and torch.equal(old, new)

    return {path for path in after.values if not same(path)}


def _check_python(before: WorldState, after: WorldState) -> None:
    changed = before.changed_python(after) or sorted(before.values.keys() ^ after.values.keys())
    if changed:
        raise TraceError(f"keeps changing state in Python: {', '.join(changed[:3])}")


def _check_generators(before: dict, after: dict) -> None:
    if before["python"] != after["python"] or not torch.equal(before["numpy"][1], after["numpy"][1]):
        raise TraceError("a step draws from Python's or numpy's random generator")
