"""The VMAS world below an environment: what it holds, and how it is stepped, reset, saved and loaded."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.branches import VmasShortcuts
from ctde_kit.envs.vmas.masked_reset import masked_reset
from ctde_kit.envs.vmas.random_stream import RandomStream
from ctde_kit.envs.vmas.scenario_values import only_tensors
from ctde_kit.envs.vmas.spawning import limited_spawning
from ctde_kit.envs.vmas.world_memory import WorldMemory
from ctde_kit.envs.vmas.world_snapshot import restore, snapshot
from ctde_kit.envs.vmas.world_state import WorldState
from ctde_kit.errors import UserError
from ctde_kit.graph.draws import drawing_from
from ctde_kit.graph.shortcuts import taking_shortcuts
from ctde_kit.protocols import StateDict

Observation = Tensor | dict[str, "Observation"]
Infos = dict[str, Tensor]
Step = Callable[[Environment, Sequence[Tensor]], tuple[list[Observation], list[Tensor], Tensor, list[Infos]]]
# Without VMAS's decorator, which replaces the program's random stream with VMAS's own.
_STEP: Step = vars(Environment)["step"].__wrapped__


class VmasSimulation:
    """A batch of VMAS worlds with their elapsed steps, their random stream and what the agents last saw.

    It knows neither specs nor TorchRL's environment. ``VmasEnv`` stands on top of it; a compiled step, a state as a
    TensorDict and fresh initial states are made from it.

    Args:
        world: VMAS's environment, whose world is built.
        group_map: the names of each group's agents.
        name: the scenario's, for messages.
        max_steps: steps after which an episode is truncated, ``None`` for no limit.
        with_info: also give the scenario's ``(group, "info", ...)`` entries.
        random_stream: where all draws come from.
        device: where the world lives.
    """

    def __init__(
        self,
        world: Environment,
        group_map: Mapping[str, Sequence[str]],
        *,
        name: str,
        max_steps: int | None,
        with_info: bool,
        random_stream: RandomStream,
        device: torch.device,
    ):
        numbers = {agent.name: number for number, agent in enumerate(world.agents)}
        self.groups = {group: [numbers[agent] for agent in agents] for group, agents in group_map.items()}
        self.world, self.name, self.random_stream, self.device = world, name, random_stream, device
        self.max_steps, self.with_info = max_steps, with_info
        self.batch_size = torch.Size([world.num_envs])
        self.elapsed = torch.zeros(world.num_envs, 1, dtype=torch.long, device=device)
        self.last: TensorDict | None = None
        """The observations that the last step or reset gave; ``None`` before the first reset."""
        self.python_state: tuple[str, ...] = ()
        """Paths of what the scenario keeps in Python for the whole batch, once a partial reset has found it."""

    def step(self, group_actions: Sequence[Tensor]) -> TensorDict:
        """Observations, rewards and done flags after actions ``[n_envs, n_agents, ...]``, one tensor per group."""
        actions: list[Tensor] = [torch.empty(0)] * len(self.world.agents)
        for numbers, action in zip(self.groups.values(), group_actions, strict=True):
            for number, part in zip(numbers, action.unbind(dim=1), strict=True):
                actions[number] = part
        given = only_tensors(self.name, self.batch_size[0])
        with taking_shortcuts(VmasShortcuts()), drawing_from(self.random_stream), given:
            observations, rewards, terminated, infos = _STEP(self.world, actions)
        self.elapsed.add_(1)
        self.last = self._gather(observations, infos)
        output = self.last.copy()
        for group, numbers in self.groups.items():
            reward = torch.stack([self._per_env(rewards[i], "reward", i) for i in numbers], 1)
            output.set((group, "reward"), _as_float(reward))
        return self._with_done(output, terminated)

    def reset(self, mask: Tensor | None = None) -> TensorDict:
        """Observations and done flags after a reset of all worlds, or of those where ``mask`` ``[n_envs, 1]`` is true.

        A partial reset leaves the state of the other worlds bit for bit as it was.
        """
        spawning = limited_spawning(self.world.scenario)
        with taking_shortcuts(VmasShortcuts()), drawing_from(self.random_stream), spawning:
            if mask is None or self.last is None or bool(mask.all()):
                self.world._reset(return_observations=False)
                self.elapsed.zero_()
                self.last = self._observe()
            else:
                self.last = self._partial_reset(mask, self.last)
        return self.current()

    def _partial_reset(self, mask: Tensor, last: TensorDict) -> TensorDict:
        rows = mask.squeeze(-1)
        output = None if self.python_state else self._reset_in_one_batch(rows, last)
        if output is None:
            for index in rows.nonzero().flatten().tolist():
                self.world._reset_at(index, return_observations=False)
            output = self._observe()
        self.elapsed.masked_fill_(mask, 0)
        return output

    def _reset_in_one_batch(self, rows: Tensor, last: TensorDict) -> TensorDict | None:
        """Observations after it; ``None``, and env by env from now on, where the scenario's state does not allow it."""
        output, obstacles = masked_reset(self.world, self._observe, rows, last)
        if output is None:
            self.python_state = tuple(obstacles)
            warnings.warn(
                f"scenario {self.name!r} keeps state for the whole batch in {', '.join(obstacles[:3])}: "
                "partial resets go env by env, and change that for all; keep a tensor with one row per env instead",
                stacklevel=2,
            )
        return output

    def current(self) -> TensorDict:
        """The present observations and done flags."""
        assert self.last is not None
        with taking_shortcuts(VmasShortcuts()):
            terminated = self._per_env(self.world.scenario.done(), "done").clone()
        return self._with_done(self.last.copy(), terminated)

    def _observe(self) -> TensorDict:
        """What the agents see at this moment, asked of the scenario."""
        with only_tensors(self.name, self.batch_size[0]):
            entries: Any = self.world._get_from_scenario(  # declared as a union of whatever may be asked for
                get_observations=True, get_infos=True, get_rewards=False, get_dones=False
            )
        assert entries is not None
        return self._gather(*entries)

    def _gather(self, observations: list[Observation], infos: list[Infos]) -> TensorDict:
        output = TensorDict({}, batch_size=self.batch_size, device=self.device)
        for group, numbers in self.groups.items():
            entries: list[Any] = [self._observation(observations[i], i) for i in numbers]  # tensors, or all TensorDicts
            self._check_alike("observation", group, [entry.shape for entry in entries], lambda s: f"a tensor {list(s)}")
            agents = TensorDict(
                {"observation": torch.stack(entries, 1)}, [*self.batch_size, len(numbers)], device=self.device
            )
            if self.with_info and infos[numbers[0]]:
                self._check_alike(
                    "info", group, [infos[i].keys() for i in numbers], lambda k: ", ".join(k) or "nothing"
                )
                infos_of_group: list[Any] = [self._info(infos[i], i) for i in numbers]  # torch stacks TensorDicts, too
                agents.set("info", torch.stack(infos_of_group, 1))
            output.set(group, agents)
        return output

    def _check_alike(self, method: str, group: str, kinds: Sequence[Any], in_words: Callable[[Any], str]) -> None:
        """Raise ``UserError`` where an agent of a group gives values of another kind than the first one does."""
        for number, kind in zip(self.groups[group], kinds, strict=True):
            if kind != kinds[0]:
                expected = f"{in_words(kinds[0])}, as of the others of group {group!r}"
                raise self._misfit(method, number, expected, in_words(kind))

    def _observation(self, observation: Observation, number: int) -> Tensor | TensorDict:
        """A tensor ``[n_envs, F]``, or a TensorDict of tensors where the scenario gives a dictionary."""
        if isinstance(observation, Mapping):
            return TensorDict(
                {key: self._observation(part, number) for key, part in observation.items()}, self.batch_size
            )
        n_envs = self.batch_size[0]
        if not isinstance(observation, Tensor) or observation.shape[:1] != self.batch_size:
            raise self._misfit("observation", number, f"a tensor [{n_envs}, features]", observation)
        # Flags and whole numbers, too, as VMAS's own spaces say.
        return self._with_features(_as_float(observation))

    def _per_env(self, value: object, method: str, number: int | None = None) -> Tensor:
        """A scenario's value of each env, as ``[n_envs, 1]``."""
        n_envs = self.batch_size[0]
        if not isinstance(value, Tensor) or value.numel() != n_envs:
            raise self._misfit(method, number, f"a tensor [{n_envs}], one value per environment", value)
        return value.reshape(n_envs, 1)

    def _misfit(self, method: str, number: int | None, expected: str, found: object) -> UserError:
        kind = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        shown = found if isinstance(found, str) else kind
        of = "" if number is None else f" of agent {self.world.agents[number].name!r}"
        return UserError(f"scenario {self.name!r}: {method}{of}: expected {expected}, found {shown}; return that")

    def _info(self, info: Infos, number: int) -> TensorDict:
        for key, value in info.items():
            if not isinstance(value, Tensor):
                raise self._misfit(f"info[{key!r}]", number, f"a tensor [{self.batch_size[0]}, ...]", value)
        entries = {key: self._with_features(value.to(torch.float32)) for key, value in info.items()}
        return TensorDict(entries, self.batch_size, device=self.device)

    def _with_features(self, value: Tensor) -> Tensor:
        return value.unsqueeze(-1) if value.shape == self.batch_size else value

    def _with_done(self, output: TensorDict, terminated: Tensor) -> TensorDict:
        # Zeros and ones, too, as VMAS takes them.
        terminated = self._per_env(terminated, "done").to(torch.bool)
        truncated = torch.zeros_like(terminated)
        if self.max_steps is not None:
            truncated = self.elapsed >= self.max_steps
        output.set("terminated", terminated)
        output.set("truncated", truncated)
        output.set("done", terminated | truncated)
        return output

    def state_dict(self) -> StateDict:
        """The whole world, the episodes' elapsed steps, the last observations and the random stream."""
        world = WorldState.read(self.world)
        unreadable = world.unreadable()
        if unreadable:
            warnings.warn(
                f"scenario {self.name!r} keeps {', '.join(unreadable[:3])} out of reach, and a saved state lacks it",
                stacklevel=3,
            )
        return {
            "world": snapshot(world),
            "elapsed": self.elapsed.clone(),
            "last": None if self.last is None else self.last.clone().to_dict(),
            "random_stream": self.random_stream.state_dict(),
            "python_state": self.python_state,
        }

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Go on from a state that a simulation built with the same arguments gave.

        Raises:
            ValueError: for the state of one that was built otherwise; nothing is changed then.
        """
        last, rows = state_dict["last"], len(state_dict["elapsed"])
        if rows != len(self.elapsed):
            raise ValueError(f"the saved env state is of {rows} environments, and this env has {len(self.elapsed)}")
        if last is not None and last.keys() != self.groups.keys():
            raise ValueError(f"the saved env state has the groups {list(last)}, and this env {list(self.groups)}")
        read = None if last is None else self._observations_of(last)
        restore(WorldState.read(self.world), state_dict["world"])
        self.elapsed.copy_(state_dict["elapsed"])
        self.last = read
        self.random_stream.load_state_dict(state_dict["random_stream"])
        self.python_state = tuple(state_dict["python_state"])

    @contextlib.contextmanager
    def unchanged(self, *, keep_new: bool = True) -> Iterator[None]:
        """Inside the block it may be stepped, reset and written to; then it is as before, with the same tensors.

        Args:
            keep_new: whether attributes that steps add stay, of which VMAS makes some at the first step. After an
                error none does.
        """
        memory = WorldMemory(WorldState.read(self.world))
        last = None if self.last is None else self.last.clone()
        elapsed, stream, python_state = self.elapsed.clone(), self.random_stream.state_dict(), self.python_state
        stays = False
        try:
            yield
            stays = keep_new
        finally:
            memory.put_back(keep_new=stays)
            self.elapsed, self.last, self.python_state = elapsed, last, python_state
            self.random_stream.load_state_dict(stream)

    def _observations_of(self, saved: dict[str, StateDict]) -> TensorDict:
        output = TensorDict({}, batch_size=self.batch_size, device=self.device)
        for group, numbers in self.groups.items():
            batch_size = torch.Size([*self.batch_size, len(numbers)])
            observations = TensorDict(saved[group], [], device=self.device).clone()
            for name, value in observations.items(True, True):
                if value.shape[:2] != batch_size:
                    raise ValueError(
                        f"the saved env state has {list(value.shape)} in {(group, name)}, and this env "
                        f"{len(numbers)} agents in {group!r}: build the env as it was saved"
                    )
            observations.batch_size = batch_size
            output.set(group, observations)
        return output


def _as_float(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float32 else value.to(torch.float32)
