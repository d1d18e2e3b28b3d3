"""A batch of SMAX battles as pure functions of JAX: reset, step, and what is seen of them."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import jax  # pyright: ignore[reportMissingImports]  # an extra
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]  # an extra
from jaxmarl import make  # pyright: ignore[reportMissingImports]  # an extra
from jaxmarl.environments.smax import map_name_to_scenario  # pyright: ignore[reportMissingImports]  # an extra
from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO  # pyright: ignore[reportMissingImports]  # an extra

from ctde_kit.errors import UserError

NEVER = 2**30
"""Steps after which SMAX itself would end a battle, out of reach: ``SmaxEnv`` has the limit, and truncates."""


_OF_THE_MAP = ("num_allies", "num_enemies", "smacv2_position_generation", "smacv2_unit_type_generation", "scenario")


class Seen(NamedTuple):
    """What a batch of battles shows; arrays of JAX.

    Args:
        observation: ``[B, n_agents, F]``.
        world_state: ``[B, S]``.
        action_mask: ``[B, n_agents, A]`` bool.
        won: ``[B]`` bool, all enemies are dead and an ally lives.
        ended: ``[B]`` bool, one side is dead.
    """

    observation: Any
    world_state: Any
    action_mask: Any
    won: Any
    ended: Any


class Stepped(NamedTuple):
    """What a step of a batch of battles gave, and a reset of those that ended in it; arrays of JAX.

    Args:
        keys: the random streams.
        state: of all battles, in a new one where one ended.
        last: what the step showed.
        now: what the reset showed where a battle ended, elsewhere as ``last``.
        rewards: ``[B, n_agents]``.
        ended: ``[B]`` bool, one side is dead or the time is over.
    """

    keys: Any
    state: Any
    last: Seen
    now: Seen
    rewards: Any
    ended: Any


class Battles:
    """SMAX's battles of one map against its scripted enemy, batched over envs by ``jax.vmap`` and compiled.

    Args:
        map_name: of JaxMARL, such as ``3m`` or ``smacv2_5_units``.
        arguments: of JaxMARL's ``SMAX``.

    Raises:
        UserError: for an unknown map, for arguments that SMAX takes from the map, and for continuous actions.
    """

    def __init__(self, map_name: str, arguments: dict[str, Any]):
        if map_name not in MAP_NAME_TO_SCENARIO:
            close = difflib.get_close_matches(map_name, MAP_NAME_TO_SCENARIO, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(MAP_NAME_TO_SCENARIO)}"
            raise UserError(f"map_name={map_name!r}: SMAX has no such map; {hint}")
        for name in _OF_THE_MAP:
            if name in arguments:
                raise UserError(f"{name}={arguments[name]!r}: SMAX takes this from the map; leave it out")
        action_type = arguments.get("action_type", "discrete")
        if action_type != "discrete":
            raise UserError(f"action_type={action_type!r}: expected 'discrete', the actions that masks are for")
        self.env: Any = make(
            "HeuristicEnemySMAX", scenario=map_name_to_scenario(map_name), **{**arguments, "max_steps": NEVER}
        )
        self.agents: list[str] = list(self.env.agents)
        self.reset = jax.jit(jax.vmap(self._reset))
        self.step = jax.jit(jax.vmap(self._step))
        self.step_on = jax.jit(self._step_on)
        self.choose = jax.jit(self._choose)

    def _reset(self, key: Any) -> tuple[Any, Any, Seen]:
        key, used = jax.random.split(key)
        observations, state = self.env.reset(used)
        return key, _typed(state), self._seen(observations, state)

    def _step(self, key: Any, state: Any, actions: Any) -> tuple[Any, Any, Seen, Any]:
        key, used = jax.random.split(key)
        by_agent = {agent: actions[number] for number, agent in enumerate(self.agents)}
        observations, state, rewards, _, _ = self.env.step_env(used, state, by_agent)
        reward = jnp.stack([rewards[agent] for agent in self.agents])
        return key, _typed(state), self._seen(observations, state), reward

    def _step_on(self, keys: Any, state: Any, actions: Any, late: Any) -> Stepped:
        """Step all, and reset those that end or are ``late`` ``[B]``, by the numbers of ``step`` and ``reset``."""
        keys, state, last, rewards = jax.vmap(self._step)(keys, state, actions)
        ended = last.ended | late

        def begin_anew() -> tuple[Any, Any, Seen]:
            new_keys, new_state, seen = jax.vmap(self._reset)(keys)
            return *self._choose(ended, (new_keys, new_state), (keys, state)), _where(ended, seen, last)

        chosen = jax.lax.cond(ended.any(), begin_anew, lambda: (keys, state, last))
        return Stepped(chosen[0], chosen[1], last, chosen[2], rewards, ended)

    def _seen(self, observations: dict[str, Any], state: Any) -> Seen:
        masks = self.env.get_avail_actions(state)
        alive = state.state.unit_alive
        allies, enemies = alive[: len(self.agents)].any(), alive[len(self.agents) :].any()
        return Seen(
            jnp.stack([observations[agent] for agent in self.agents]),
            observations["world_state"],
            jnp.stack([masks[agent] for agent in self.agents]).astype(bool),
            allies & ~enemies,
            ~(allies & enemies),
        )

    def _choose(self, mask: Any, new: tuple[Any, Any], old: tuple[Any, Any]) -> tuple[Any, Any]:
        """The new keys and states of the battles where ``mask`` ``[B]`` is true; the others stay bit for bit."""
        keys = _where(mask, jax.random.key_data(new[0]), jax.random.key_data(old[0]))
        return jax.random.wrap_key_data(keys), _where(mask, new[1], old[1])


def _where(mask: Any, one: Any, other: Any) -> Any:
    """The leaves of one tree where ``mask`` ``[B]`` is true, elsewhere those of the other."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y), one, other)


# JAX compiles the functions of each object anew, which takes ten seconds and more.
_MADE: dict[tuple[str, str], Battles] = {}


def battles_of(map_name: str, arguments: dict[str, Any]) -> Battles:
    """``Battles`` of a map, which keep nothing: one object in a process for all envs with the same arguments."""
    key = (map_name, repr(sorted(arguments.items())))
    if key not in _MADE:
        _MADE[key] = Battles(map_name, arguments)
    return _MADE[key]


def _typed(state: Any) -> Any:
    """A state without JAX's weak types: a step gives other ones than a reset, and would be compiled twice."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)
