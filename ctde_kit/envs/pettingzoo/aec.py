"""PettingZoo's AEC environments, seen through the parallel interface."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Space
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import (
    aec_to_parallel_wrapper,
    parallel_to_aec_wrapper,
    turn_based_aec_to_parallel_wrapper,
)
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, ClipOutOfBoundsWrapper, OrderEnforcingWrapper

from ctde_kit.errors import UserError

AnyParallelEnv: TypeAlias = ParallelEnv[str, Any, Any]
"""A PettingZoo environment whose observations and actions are whatever its spaces hold."""
AnySpace: TypeAlias = Space[Any]
Entries: TypeAlias = dict[str, Any]
"""An observation, action or info for each agent, as the environment gives or takes it."""

# They change neither observations nor states.
_CHECKS = (AssertOutOfBoundsWrapper, ClipOutOfBoundsWrapper, OrderEnforcingWrapper)


class AECAsParallel(AnyParallelEnv):
    """An AEC environment whose ``step`` takes the actions of ``acting_agents`` as a dictionary.

    A cycle of a parallelizable environment (``metadata["is_parallelizable"]``) is one step. Of any other
    environment one step is one agent's turn: ``acting_agents`` names the agent on turn, and only its action is read.
    Every agent observes and is rewarded at every step. An agent that ended is removed without a step of its own: it
    observes before it is removed, and the others after it, when it is settled whose turn it is.

    Differences from ``pettingzoo.utils.conversions``: the two conversions are one class; nothing is observed twice
    (which takes a third of an MPE step), for the state of an MPE2 environment neither, which is what was given as
    observations, in the same memory; and the wrapper that only checks
    the order of calls is left out.

    Raises ``RuntimeError`` where a parallelizable environment breaks its promise (an agent ends within a cycle).

    >>> from mpe2 import simple_spread_v3
    >>> from ctde_kit.envs.pettingzoo import AECAsParallel
    >>> env = AECAsParallel(simple_spread_v3.env())
    >>> env.turn_based, env.acting_agents
    (False, ['agent_0', 'agent_1', 'agent_2'])
    """

    def __init__(self, aec: AECEnv[str, Any, Any]) -> None:
        # Its check costs 15 % of an MPE step, and the callers in this package always reset before they step.
        self._aec: Any = aec.env if type(aec) is OrderEnforcingWrapper else aec
        self.metadata = aec.metadata
        self.turn_based = not aec.metadata.get("is_parallelizable", False)
        self.possible_agents = list(aec.possible_agents)
        self.agents = list(aec.possible_agents)
        self.render_mode = getattr(aec, "render_mode", None)
        self._state_is_observed = _state_is_observed(aec)
        self._observations: Entries = {}

    @property
    def acting_agents(self) -> list[str]:
        """The agents whose actions the next ``step`` takes."""
        if self.turn_based and self.agents:
            return [self._aec.agent_selection]
        return list(self.agents)

    @property
    def unwrapped(self) -> AECEnv[str, Any, Any]:
        """The innermost AEC environment."""
        return self._aec.unwrapped

    def observation_space(self, agent: str) -> AnySpace:
        """The space of ``agent``'s observations."""
        return self._aec.observation_space(agent)

    def action_space(self, agent: str) -> AnySpace:
        """The space of ``agent``'s actions."""
        return self._aec.action_space(agent)

    def reset(self, seed: int | None = None, options: Entries | None = None) -> tuple[Entries, Entries]:
        """Start an episode."""
        aec = self._aec
        aec.reset(seed=seed, options=options)
        self.agents = list(aec.agents)
        self._observations = {agent: aec.observe(agent) for agent in self.agents}
        return dict(self._observations), dict(aec.infos)

    def step(self, actions: Entries) -> tuple[Entries, dict[str, float], dict[str, bool], dict[str, bool], Entries]:
        """Step every acting agent, in turn."""
        aec = self._aec
        rewards: dict[str, float] = dict.fromkeys(aec.agents, 0.0)
        for agent in self.acting_agents:
            if agent != aec.agent_selection:
                raise RuntimeError(
                    f"{aec}: expected the turn of {agent!r}, found that of {aec.agent_selection!r}: an agent ended "
                    'within a cycle; set metadata["is_parallelizable"] = False'
                )
            aec.step(actions[agent])
            for other, reward in aec.rewards.items():
                rewards[other] += reward
        terminations, truncations, infos = dict(aec.terminations), dict(aec.truncations), dict(aec.infos)
        ended = [agent for agent in aec.agents if terminations[agent] or truncations[agent]]
        # Agents that ended can be observed only now. For the others it is too early: until the ended ones are removed,
        # one of them may be on turn, and some environments tell only the agent on turn what it may do.
        observations = {agent: aec.observe(agent) for agent in ended}
        self._remove_ended()
        observations.update({agent: aec.observe(agent) for agent in aec.agents if agent not in observations})
        self._observations = dict(observations)
        return observations, rewards, terminations, truncations, infos

    def _remove_ended(self) -> None:
        aec = self._aec
        while aec.agents and (aec.terminations[aec.agent_selection] or aec.truncations[aec.agent_selection]):
            aec.step(None)
        self.agents = list(aec.agents)

    def state(self) -> np.ndarray:
        """The global state, where the environment has one; raises ``NotImplementedError`` where not."""
        # An environment may keep an attribute of that name for itself, which wrappers would call.
        if not callable(getattr(self.unwrapped, "state", None)):
            raise NotImplementedError
        if self._state_is_observed and len(self._observations) == len(self.possible_agents):
            return np.concatenate([self._observations[agent] for agent in self.possible_agents], axis=None)
        return self._aec.state()

    def render(self) -> np.ndarray | str | list[object] | None:
        """A frame, as the environment's ``render_mode`` has it."""
        return self._aec.render()

    def close(self) -> None:
        """Close the AEC environment."""
        self._aec.close()


def _state_is_observed(aec: AECEnv[str, Any, Any]) -> bool:
    """Whether the state is all agents' observations in a row, as in MPE2, which computes each anew for it."""
    env: Any = aec
    while type(env) in _CHECKS:
        env = env.env
    methods = (getattr(type(env), name, None) for name in ("observe", "state"))
    return all(getattr(method, "__module__", "") == "mpe2._mpe_utils.simple_env" for method in methods)


def as_parallel(env: object) -> AnyParallelEnv:
    """The fastest parallel view of a PettingZoo environment of either interface.

    Raises ``UserError`` where ``env`` is neither a ``ParallelEnv`` nor an ``AECEnv``.

    >>> from mpe2 import simple_spread_v3
    >>> from ctde_kit.envs.pettingzoo import as_parallel
    >>> type(as_parallel(simple_spread_v3.parallel_env())).__name__
    'AECAsParallel'
    """
    # Not their subclasses, which may do more.
    if type(env) is aec_to_parallel_wrapper or type(env) is turn_based_aec_to_parallel_wrapper:
        env = env.aec_env
    if type(env) is OrderEnforcingWrapper and type(env.env) is parallel_to_aec_wrapper:
        env = env.env.env
    if isinstance(env, ParallelEnv):
        return env
    if isinstance(env, AECEnv):
        return AECAsParallel(env)
    raise UserError(
        f"factory: expected it to return a pettingzoo ParallelEnv or AECEnv, found {type(env).__name__}; "
        "wrap the environment in one of the two"
    )
