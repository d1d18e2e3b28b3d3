"""VMAS with true truncation, a batched partial reset, and a random stream of its own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical
from torchrl.envs.libs.vmas import VmasEnv as TorchRLVmasEnv
from vmas.simulator.environment import Environment
from vmas.simulator.scenario import BaseScenario

from ctde_kit.envs.vmas.compiled_step import CompiledVmasStep
from ctde_kit.envs.vmas.grouping import split_groups
from ctde_kit.envs.vmas.initial_states import draw_initial_states, take_initial_states
from ctde_kit.envs.vmas.masked_reset import masked_reset
from ctde_kit.envs.vmas.random_stream import RandomStream
from ctde_kit.envs.vmas.scenario_arguments import check_arguments, load_scenario
from ctde_kit.envs.vmas.tensor_state import TensorState
from ctde_kit.envs.vmas.world_state import WorldState
from ctde_kit.graph import TraceError, drawing_from, report_fallback


class VmasEnv(TorchRLVmasEnv):
    """TorchRL's ``VmasEnv`` with what it lacks for CTDE, same keys and shapes ``[n_envs, n_agents, F]``.

    Where it differs from TorchRL's:

    - ``max_steps`` (steps an episode) reports ``truncated``, not ``terminated``, so that targets bootstrap;
    - a partial reset draws one batched reset and keeps it where asked, at a cost that does not grow with the number
      of finished envs; the others' state stays bit for bit. A scenario that keeps part of its state in Python,
      one value for the whole batch, is found at its first partial reset, named in ``python_state`` and in a
      warning, and reset env by env from then on, as VMAS does;
    - each env draws from its own random stream: an evaluation env does not change what a training env draws;
    - agents of one group that differ in their spaces become groups of their own;
    - an argument that the scenario never reads is an error; ``info`` entries are left out unless asked for;
    - ``state_dict`` holds the whole world, so that a loaded env goes on bit for bit (on a CPU).

    Args:
        scenario: a name that VMAS ships (``navigation``, ``simple_tag``) or a scenario object.
        num_envs: environments in the batch.
        max_steps: steps after which an episode is truncated, ``None`` for no limit.
        continuous_actions: bounded continuous actions, else one categorical action an agent.
        seed: seed of the env's random stream.
        device: where the world lives.
        info: also write the scenario's ``(group, "info", ...)`` entries.
        compile_step: run a step as one compiled graph; a scenario that cannot be traced says in one line why not, and
            steps plainly. ``RolloutCollector(compile=True)`` compiles policy and env together, and does not need this.
        scenario_kwargs: the scenario's own arguments.

    Raises:
        UserError: for an unknown scenario or argument.

    >>> env = VmasEnv("navigation", num_envs=4, max_steps=3, scenario_kwargs={"n_agents": 2})
    >>> rollout = env.rollout(3)
    >>> rollout["next", "truncated"][:, -1].all().item(), rollout["next", "terminated"].any().item()
    (True, False)
    """

    def __init__(
        self,
        scenario: str | BaseScenario,
        *,
        num_envs: int,
        max_steps: int | None = None,
        continuous_actions: bool = True,
        seed: int = 0,
        device: torch.device | str = "cpu",
        info: bool = False,
        compile_step: bool = False,
        scenario_kwargs: dict[str, Any] | None = None,
    ):
        name = scenario if isinstance(scenario, str) else type(scenario).__name__
        scenario = load_scenario(scenario)
        check_arguments(scenario, scenario_kwargs or {})
        self.max_episode_steps = max_steps
        self.with_info = info
        # TorchRL's wrapper looks an attribute that it lacks up in VMAS's env, which takes 0.1 ms each time.
        self.continuous_actions = continuous_actions
        self.python_state = ()
        self.random_stream = RandomStream(seed, device)
        with drawing_from(self.random_stream):
            super().__init__(
                scenario,
                num_envs=num_envs,
                continuous_actions=continuous_actions,
                device=torch.device(device),
                scenario_kwargs=scenario_kwargs,
            )
        self.scenario_name = name
        self.elapsed = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        self._last = None
        self._tensor_state: TensorState | None = None
        self._fresh: TensorDictBase | None = None
        self.compile_step = compile_step
        self._compiled: CompiledVmasStep | None = None

    @property
    def world(self) -> Environment:
        """The VMAS environment underneath."""
        if self._compiled is not None:
            self._compiled.flush()
        return self._env

    def _make_specs(self, env: Environment) -> None:
        groups = self._get_default_group_map([agent.name for agent in env.agents])
        assert groups is not None
        self.group_map = split_groups(env, groups)
        super()._make_specs(env)
        done = self.full_done_spec_unbatched
        for key in ("terminated", "truncated"):
            done[key] = Categorical(n=2, shape=torch.Size((1,)), dtype=torch.bool, device=self.device)
        self.full_done_spec_unbatched = done
        if not self.with_info:
            observation = self.full_observation_spec_unbatched
            for group in self.group_map:
                if (group, "info") in observation.keys(True):
                    del observation[group, "info"]
            self.full_observation_spec_unbatched = observation

    def _set_seed(self, seed: int | None) -> None:
        self.random_stream.seed(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        world = self.world  # what a compiled step holds is written back here
        if self._fresh is not None and mask is not None:
            take_initial_states(self.tensor_state, mask.squeeze(-1), self._fresh)
            assert self._last is not None
            return self._with_done(self._last.copy(), world.scenario.done().clone())
        with drawing_from(self.random_stream):
            if mask is None or self._last is None or bool(mask.all()):
                world._reset(return_observations=False)
                self.elapsed.zero_()
                output = self.observe()
            else:
                output = self._partial_reset(mask)
        self._last = output
        return self._with_done(output.copy(), world.scenario.done().clone())

    def _partial_reset(self, mask: Tensor) -> TensorDict:
        self.elapsed.masked_fill_(mask, 0)
        if not self.python_state:
            output, obstacles = masked_reset(self, mask.squeeze(-1), self._last)
            if output is not None:
                return output
            self._fall_back(obstacles)
        for index in mask.squeeze(-1).nonzero().flatten().tolist():
            self.world._reset_at(index, return_observations=False)
        return self.observe()

    def _fall_back(self, obstacles: list[str]) -> None:
        self.python_state = tuple(obstacles)
        warnings.warn(
            f"scenario {self.scenario_name!r} keeps state for the whole batch in {', '.join(obstacles[:3])}: "
            "partial resets go env by env",
            stacklevel=2,
        )

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self.compile_step and self._fresh is None and self._compiled is None:
            try:
                self._compiled = CompiledVmasStep(self, tensordict)
            except TraceError as reason:
                self.compile_step = False
                report_fallback(f"the step of {self.scenario_name}", reason)
        if self.compile_step and self._fresh is None and self._compiled is not None:
            return self._compiled(tensordict)
        return self.plain_step([tensordict.get((group, "action")) for group in self.group_map])

    def plain_step(self, group_actions: Sequence[Tensor]) -> TensorDict:
        """VMAS's own step: an action ``[n_envs, n_agents, ...]`` a group -> outputs."""
        actions: list[Tensor] = [torch.empty(0)] * len(self.agent_names)
        for (group, agent_names), action in zip(self.group_map.items(), group_actions, strict=True):
            for name, part in zip(agent_names, self.read_action(action, group=group), strict=True):
                actions[self.agent_names_to_indices_map[name]] = part
        with drawing_from(self.random_stream):
            observations, rewards, terminated, infos = Environment.step.__wrapped__(self.world, actions)
        self.elapsed.add_(1)
        output = self._gather(observations, infos)
        self._last = output
        output = output.copy()
        for group, agent_names in self.group_map.items():
            indices = [self.agent_names_to_indices_map[name] for name in agent_names]
            reward = torch.stack([rewards[i].reshape(self.batch_size[0], 1) for i in indices], 1)
            output.set((group, "reward"), reward)
        return self._with_done(output, terminated)

    def observe(self) -> TensorDict:
        """What the agents see at this moment."""
        entries = self.world._get_from_scenario(
            get_observations=True, get_infos=True, get_rewards=False, get_dones=False
        )
        assert entries is not None
        observations, infos = entries
        return self._gather(observations, infos)

    def _gather(self, observations: list[Any], infos: list[dict[str, Tensor]]) -> TensorDict:
        output = TensorDict({}, batch_size=self.batch_size, device=self.device)
        for group, agent_names in self.group_map.items():
            indices = [self.agent_names_to_indices_map[name] for name in agent_names]
            read: list[Any] = [self.read_obs(observations[i]) for i in indices]
            agents = TensorDict(
                {"observation": torch.stack(read, 1)}, [*self.batch_size, len(indices)], device=self.device
            )
            if self.with_info and infos[indices[0]]:
                agents.set("info", torch.stack([self.read_info(infos[i]) for i in indices], 1))
            output.set(group, agents)
        return output

    def _with_done(self, output: TensorDict, terminated: Tensor) -> TensorDict:
        terminated = terminated.reshape(self.batch_size[0], 1)
        truncated = torch.zeros_like(terminated)
        if self.max_episode_steps is not None:
            truncated = self.elapsed >= self.max_episode_steps
        output.set("terminated", terminated)
        output.set("truncated", truncated)
        output.set("done", terminated | truncated)
        return output

    @property
    def tensor_state(self) -> TensorState:
        """Reads and writes the state as a TensorDict; building it raises ``TraceError`` where that cannot be done."""
        if self._tensor_state is None:
            self._tensor_state = TensorState(self)
        return self._tensor_state

    def draw_initial_states(self, count: int) -> TensorDict:
        """At least ``count`` fresh initial states, one a row; the env goes on as if nothing had happened."""
        return draw_initial_states(self, self.tensor_state, count)

    @contextlib.contextmanager
    def resets_to(self, fresh: TensorDictBase) -> Iterator[None]:
        """Inside the block steps are plain, and partial resets take the rows of ``fresh`` ``[n_envs]``."""
        self._fresh = fresh
        try:
            yield
        finally:
            self._fresh = None

    def state_dict(self) -> dict[str, Any]:
        """The whole world, the episodes' elapsed steps and the random stream."""
        return {
            "world": WorldState.read(self.world).snapshot(),
            "elapsed": self.elapsed.clone(),
            "last": None if self._last is None else self._last.clone().to_dict(),
            "random_stream": self.random_stream.state_dict(),
            "python_state": self.python_state,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that an env built with the same arguments gave."""
        WorldState.read(self.world).restore(state_dict["world"])
        self.elapsed.copy_(state_dict["elapsed"])
        self._last = None if state_dict["last"] is None else self._from_dict(state_dict["last"])
        self.random_stream.load_state_dict(state_dict["random_stream"])
        self.python_state = tuple(state_dict["python_state"])

    def _from_dict(self, saved: dict[str, dict[str, Any]]) -> TensorDict:
        output = TensorDict({}, batch_size=self.batch_size, device=self.device)
        for group, names in self.group_map.items():
            batch_size = [*self.batch_size, len(names)]
            output.set(group, TensorDict(saved[group], batch_size, device=self.device).clone())
        return output
