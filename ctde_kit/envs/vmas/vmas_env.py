"""VMAS with true truncation, a batched partial reset, and a random stream of its own."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical
from torchrl.envs import MarlGroupMapType
from torchrl.envs.libs.vmas import VmasEnv as TorchRLVmasEnv
from vmas.simulator.core import World
from vmas.simulator.environment import Environment
from vmas.simulator.scenario import BaseScenario

from ctde_kit.envs.vmas.compiled_simulation import CompiledSimulation
from ctde_kit.envs.vmas.grouping import split_groups
from ctde_kit.envs.vmas.initial_states import draw_initial_states, take_initial_states
from ctde_kit.envs.vmas.random_stream import RandomStream
from ctde_kit.envs.vmas.scenario_arguments import check_arguments, load_scenario
from ctde_kit.envs.vmas.scenario_values import only_tensors
from ctde_kit.envs.vmas.simulation import VmasSimulation
from ctde_kit.envs.vmas.spawning import limited_spawning
from ctde_kit.envs.vmas.tensor_state import TensorState
from ctde_kit.envs.vmas.world_state import WorldState
from ctde_kit.errors import UserError
from ctde_kit.graph import TraceError
from ctde_kit.graph.draws import drawing_from
from ctde_kit.graph.toolchain import report_fallback
from ctde_kit.protocols import StateDict


class VmasEnv(TorchRLVmasEnv):
    """TorchRL's ``VmasEnv`` with true time limits, cheap partial resets and states that can be saved.

    It has the same keys and shapes ``[n_envs, n_agents, F]``. Where it differs from TorchRL's:

    - ``max_steps`` (steps per episode) reports ``truncated``, not ``terminated``, so that targets bootstrap;
    - a partial reset draws one batched reset and keeps it where asked, at a cost that does not grow with the number
      of finished envs; the others' state stays bit for bit. A scenario that keeps part of its state in Python,
      one value for the whole batch, is found at its first partial reset, named in ``python_state`` and in a
      warning, and reset env by env from then on, as VMAS does. A tensor whose first size is ``num_envs`` is taken to
      have a row per env;
    - each env draws from its own random stream: an evaluation env does not change what a training env draws;
    - agents of one group that differ in their spaces become groups of their own;
    - an argument that the scenario never reads is an error; ``info`` entries are left out unless asked for;
    - ``state_dict`` holds the whole world, so that a loaded env goes on bit for bit (on a CPU). What cannot be read,
      such as a random generator of the scenario's own, is named in a warning; ``state_is_captured`` is false then.
      What a function closes over, such as a lambda's variables, is not looked for;
    - views stay views, and one tensor under two names stays one; a step that relies on views is not compiled.

    Args:
        scenario: a name that VMAS ships (``navigation``, ``simple_tag``), or a scenario's class or object. An object
            belongs to one env, whose world it holds.
        num_envs: environments in the batch.
        max_steps: steps after which an episode is truncated, ``None`` for no limit.
        continuous_actions: bounded continuous actions, else one choice per agent.
        categorical_actions: choices are indices, else one-hot vectors.
        group_map: the names of each group's agents, or one of TorchRL's ``MarlGroupMapType``; ``None``: by the agents'
            names, as TorchRL groups them.
        seed: seed of the env's random stream; ``None``: the operating system's entropy, so that workers which one
            factory builds never see the same episodes. ``set_seed`` seeds it later.
        device: where the world lives; ``None``: PyTorch's default device.
        info: also write the scenario's ``(group, "info", ...)`` entries.
        compile_step: run a step as one compiled graph; a scenario that cannot be traced says in one line why not, and
            steps eagerly. ``RolloutCollector(compile=True)`` compiles policy and env together, and does not need this.
        scenario_kwargs: the scenario's own arguments.
        arguments: the same, by name, as TorchRL's ``VmasEnv`` takes them.

    Raises:
        UserError: for an unknown scenario or argument, an object that has a world already, and where there is no room
            for all agents.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> env = VmasEnv("navigation", num_envs=4, max_steps=3, scenario_kwargs={"n_agents": 2})
    >>> rollout = env.rollout(3)
    >>> rollout["next", "truncated"][:, -1].all().item(), rollout["next", "terminated"].any().item()
    (True, False)
    """

    def __init__(
        self,
        scenario: str | BaseScenario | type[BaseScenario],
        num_envs: int,
        *,
        max_steps: int | None = None,
        continuous_actions: bool = True,
        categorical_actions: bool = True,
        group_map: MarlGroupMapType | dict[str, list[str]] | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        info: bool = False,
        compile_step: bool = False,
        scenario_kwargs: dict[str, Any] | None = None,  # what a scenario takes, as TorchRL has it
        **arguments: Any,
    ):
        device = torch.get_default_device() if device is None else torch.device(device)
        twice = sorted(arguments.keys() & (scenario_kwargs or {}).keys())
        if twice:
            raise UserError(f"VmasEnv: {twice[0]!r} is given twice, by name and in scenario_kwargs; give it once")
        arguments = {**(scenario_kwargs or {}), **arguments}
        discrete = {"continuous_actions": continuous_actions, "categorical_actions": categorical_actions}
        built = {"max_steps": max_steps, "info": info, "compile_step": compile_step, **discrete}
        placed = {"group_map": group_map, "device": device, "scenario_kwargs": arguments}
        self._arguments: dict[str, object] = {"scenario": scenario, "num_envs": num_envs, **built, **placed}
        name = scenario if isinstance(scenario, str) else None
        scenario = load_scenario(scenario)
        name = name or type(scenario).__name__
        check_arguments(scenario, arguments)
        self.with_info = info
        # TorchRL's wrapper looks up in VMAS's env what it lacks itself, which takes 0.1 ms each time.
        self.continuous_actions = continuous_actions
        self.random_stream = RandomStream(seed, device)
        with drawing_from(self.random_stream), limited_spawning(scenario), only_tensors(name, num_envs):
            super().__init__(
                scenario, num_envs=num_envs, group_map=group_map, device=device, scenario_kwargs=arguments, **discrete
            )
        assert self.device is not None
        self._simulation = VmasSimulation(
            self._env,
            self.group_map,
            name=name,
            max_steps=max_steps,
            with_info=info,
            random_stream=self.random_stream,
            device=self.device,
        )
        self._action_keys = [(group, "action") for group in self.group_map]
        self._tensor_state: TensorState | None = None
        self._fresh: TensorDictBase | None = None
        self._may_be_captured = True
        self.compile_step = compile_step
        self._compiled: CompiledSimulation | None = None

    @property
    def simulation(self) -> VmasSimulation:
        """The world, its elapsed steps and its random stream, below TorchRL's interface."""
        if self._compiled is not None:
            self._compiled.flush()
        return self._simulation

    @property
    def world(self) -> World:
        """VMAS's world, with its agents and landmarks; the VMAS environment around it is ``simulation.world``."""
        return self.simulation.world.world

    @property
    def max_steps(self) -> int | None:
        """Steps after which an episode is truncated, ``None`` for no limit."""
        return self._simulation.max_steps

    @property
    def elapsed(self) -> Tensor:
        """Steps since each env's last reset, ``[n_envs, 1]``."""
        return self.simulation.elapsed

    @property
    def python_state(self) -> tuple[str, ...]:
        """Paths of what the scenario keeps in Python for the whole batch, once a partial reset has found it."""
        return self._simulation.python_state

    def _make_specs(self, env: Environment) -> None:
        names, given = [agent.name for agent in env.agents], self.group_map
        if isinstance(given, MarlGroupMapType):
            given = given.get_group_map(names)
        groups = self._get_default_group_map(names) if given is None else given
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
        self.random_stream.seed(seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: object) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        simulation = self.simulation
        if self._fresh is not None and mask is not None:
            take_initial_states(self.tensor_state, mask.squeeze(-1), self._fresh)
            return simulation.current()
        return simulation.reset(mask)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        group_actions = self._read_actions(tensordict)
        if self.compile_step and self._fresh is None:
            if self._compiled is None:
                self._compile(group_actions)
            if self._compiled is not None:
                return self._compiled(group_actions)
        return self.eager_step(group_actions)

    def _compile(self, group_actions: Sequence[Tensor]) -> None:
        try:
            self._compiled = CompiledSimulation(self._simulation, self.tensor_state, group_actions)
        except TraceError as reason:
            self.compile_step = False
            report_fallback(f"the step of {self._simulation.name}", reason)

    def eager_step(self, group_actions: Sequence[Tensor]) -> TensorDict:
        """VMAS's own step: an action ``[n_envs, n_agents, ...]`` per group -> observations, rewards, done flags."""
        return self.simulation.step(group_actions)

    @property
    def tensor_state(self) -> TensorState:
        """Reads and writes the state as a TensorDict; building it raises ``TraceError`` where that cannot be done."""
        simulation = self.simulation
        if self._tensor_state is None:
            self._tensor_state = TensorState(simulation, self._random_actions)
        return self._tensor_state

    def _random_actions(self) -> list[Tensor]:
        return self._read_actions(self.rand_action())

    def _read_actions(self, tensordict: TensorDictBase) -> list[Tensor]:
        """The actions of each group as VMAS takes them, indices where they are choices."""
        actions = [tensordict.get(key) for key in self._action_keys]
        if self.continuous_actions or self.categorical_actions:
            return actions
        specs: Any = self.full_action_spec_unbatched
        return [specs[key].to_categorical(action) for key, action in zip(self._action_keys, actions, strict=True)]

    def to(self, device: torch.device | str) -> VmasEnv:
        """Refused for another device: the world, its random stream and compiled steps live where they were built."""
        if torch.device(device) != self.device:
            raise UserError(f"VmasEnv: cannot move from {self.device} to {device}: build it with device={device!r}")
        return self

    def draw_initial_states(self, count: int) -> TensorDict:
        """At least ``count`` fresh initial states, one per row; only the env's random stream is moved on."""
        return draw_initial_states(self.simulation, self.tensor_state, count)

    @contextlib.contextmanager
    def resets_to(self, fresh: TensorDictBase) -> Iterator[None]:
        """Inside the block steps are eager, and partial resets take the rows of ``fresh`` ``[n_envs]``."""
        self._fresh = fresh
        try:
            yield
        finally:
            self._fresh = None

    @property
    def state_is_captured(self) -> bool:
        """Whether ``state_dict`` holds all: not where the scenario has a random generator of its own, say."""
        return self._may_be_captured and not WorldState.read(self.simulation.world).unreadable()

    @state_is_captured.setter
    def state_is_captured(self, value: bool) -> None:
        """Whoever changes such an env from outside may say that ``state_dict`` does not hold all."""
        self._may_be_captured = value

    def state_dict(self) -> StateDict:
        """The whole world, the episodes' elapsed steps, the last observations and the random stream."""
        return self.simulation.state_dict()

    def __reduce__(self) -> tuple[Callable[..., VmasEnv], tuple[object, ...]]:
        """An env of the same arguments that goes on from this one's state: VMAS's own objects cannot be pickled."""
        return _rebuilt, (type(self), self._arguments, self.state_dict())

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Go on from a state that an env built with the same arguments gave.

        Raises:
            ValueError: for the state of one that was built otherwise; nothing is changed then.
        """
        for name, value in TensorDict(state_dict["last"] or {}, []).items(True, True):
            spec = self.observation_spec[name] if name in self.observation_spec.keys(True, True) else None
            # Of environments and agents the world's own state says how many there are.
            if spec is not None and spec.shape[2:] != value.shape[2:]:
                raise ValueError(
                    f"the saved env state has {list(value.shape)} in {name}, and this env {list(spec.shape)}: "
                    "build the env as it was saved"
                )
        self.simulation.load_state_dict(state_dict)


def _rebuilt(cls: Callable[..., VmasEnv], arguments: dict[str, object], state: StateDict) -> VmasEnv:
    given = arguments["scenario"]
    if isinstance(given, BaseScenario):
        # The object's world is that of the env that was saved.
        scenario = copy.copy(given)
        scenario._world = None
        arguments = {**arguments, "scenario": scenario}
    env = cls(**arguments)
    env.load_state_dict(state)
    return env
