"""The scripted policies that VMAS ships with some of its scenarios, as TensorDict modules."""

from __future__ import annotations

from pathlib import Path

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from vmas.scenarios import load
from vmas.simulator.heuristic_policy import BaseHeuristicPolicy

from ctde_kit.entries import required_entry
from ctde_kit.envs.vmas.scenario_arguments import load_scenario, shipped_scenarios
from ctde_kit.errors import UserError
from ctde_kit.specs import GroupSpec

HEURISTIC = "HeuristicPolicy"


class VmasHeuristic(TensorDictModuleBase):
    """The heuristic of a VMAS scenario as the policy of one group: each agent acts on its own observation.

    Reads ``(group, "observation")`` ``[*B, n_agents, F]``, writes ``(group, "action")`` ``[*B, n_agents, D]``, clipped
    to the bounds. It has no parameters and ignores the exploration type.

    Args:
        group: the group's spec; its actions are continuous, as VMAS's heuristics need them.
        scenario: whose heuristic, such as ``balance``.

    Raises:
        UserError: where VMAS ships no heuristic for the scenario, or actions are discrete.

    >>> import ctde_kit as ck
    >>> from ctde_kit.envs.vmas import VmasHeuristic
    >>> env = ck.VmasEnv("balance", num_envs=4)
    >>> actor = VmasHeuristic(ck.TeamSpec.from_env(env)["agents"], "balance")
    >>> actor(env.reset())["agents", "action"].shape
    torch.Size([4, 3, 2])
    """

    decentralized = True
    low: Tensor
    high: Tensor
    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, group: GroupSpec, scenario: str):
        super().__init__()
        self.group, self.scenario = group, scenario
        if group.action.discrete:
            raise UserError(
                f"heuristic: VMAS's scripted policies need continuous actions, group {group.name!r} has discrete ones; "
                "use another policy"
            )
        self.policy = _heuristic(scenario)(continuous_action=True)
        self.register_buffer("low", torch.tensor(group.action.low), persistent=False)
        self.register_buffer("high", torch.tensor(group.action.high), persistent=False)
        self.in_keys, self.out_keys = [group.keys.observation], [group.keys.action]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation = required_entry(tensordict, self.group.keys.observation)
        flat = observation.reshape(-1, *observation.shape[-2:])
        actions = [self._action(part, float(high.max())) for part, high in zip(flat.unbind(1), self.high, strict=True)]
        action = torch.stack(actions, 1).reshape(*observation.shape[:-1], -1).to(observation.dtype)
        action = torch.minimum(torch.maximum(action, self.low), self.high)
        return tensordict.set(self.group.keys.action, action)

    def _action(self, observation: Tensor, largest: float) -> Tensor:
        try:
            return self.policy.compute_action(observation, u_range=largest)
        except ModuleNotFoundError as error:
            raise UserError(
                f"heuristic: VMAS's policy for {self.scenario} needs the package {error.name}; pip install "
                f"{'cvxpylayers' if error.name == 'cvxpy' else error.name}"
            ) from error

    def for_agent(self, agent: int) -> TensorDictModuleBase:
        """The policy of one agent alone: it reads and writes entries without the agent axis.

        Raises:
            UserError: for an index that the group lacks.
        """
        return _SingleHeuristic(VmasHeuristic(self.group.for_agent(agent), self.scenario))


class _SingleHeuristic(TensorDictModuleBase):
    def __init__(self, actor: VmasHeuristic):
        super().__init__()
        self.actor = actor
        self.in_keys: list[NestedKey] = actor.in_keys
        self.out_keys: list[NestedKey] = actor.out_keys

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys, dim = self.actor.group.keys, tensordict.ndim
        observation = required_entry(tensordict, keys.observation).unsqueeze(dim)
        acted = self.actor(tensordict.empty().set(keys.observation, observation))
        return tensordict.set(keys.action, acted.get(keys.action).squeeze(dim))


def _heuristic(scenario: str) -> type[BaseHeuristicPolicy]:
    load_scenario(scenario)  # an unknown name is an error of its own
    name = scenario.rsplit("/", 1)[-1]
    found = getattr(load(f"{name}.py"), HEURISTIC, None)
    if found is None:
        raise UserError(
            f"heuristic: VMAS ships no scripted policy for {name}; it does for {', '.join(_with_heuristic())}"
        )
    return found


def _with_heuristic() -> list[str]:
    root = Path(load.__code__.co_filename).parent
    paths = {path.stem: path for path in root.rglob("*.py")}
    return [name for name in shipped_scenarios() if f"class {HEURISTIC}" in paths[name].read_text(errors="ignore")]
