"""Time VMAS's step against the kit's compiled one.

Run ``python -m tests.programs.benchmarks.vmas_step [SCENARIO ...]``.

Both step the same state with the same actions, five steps in turn, in one process; figures are medians. They are kept
in docs/results/vmas_step.json, a scenario and size at a time.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.envs.vmas.compiled_simulation import CompiledSimulation
from ctde_kit.graph import TraceError
from tests.programs.benchmarks.plain_parts import medians

RESULTS = Path(__file__).parents[3] / "docs" / "results" / "vmas_step.json"
BALANCE = {"n_agents": 4, "package_mass": 5, "random_package_pos_on_line": True}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "navigation": {"n_agents": 3, "shared_rew": False},
    "transport": {"n_agents": 4},
    "balance": BALANCE,
    "simple_spread": {},
    "simple_tag": {},
    "sampling": {"n_agents": 3},
}
SIZES = (10, 60, 600, 6000, 10_000)
# Compiling takes minutes.
FEWER_SIZES = {"sampling": (60, 600)}
N_AGENTS = (2, 4, 8, 16, 30)
# On the usual field VMAS looks for room for 30 agents and their goals for ever.
LARGER_FIELD = {"world_spawning_x": 2, "world_spawning_y": 2}


def compare(scenario: str, n_envs: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds a step of VMAS, of the compiled step, and seconds of tracing and compiling."""
    env = VmasEnv(scenario, num_envs=n_envs, max_steps=100, scenario_kwargs=arguments)
    carrier = env.reset()
    torch.manual_seed(0)
    for _ in range(5):
        carrier = env.step_mdp(env.step(env.rand_action(carrier)))
    tensordict = env.rand_action(carrier)
    group_actions = [tensordict.get((group, "action")) for group in env.group_map]
    started = time.perf_counter()
    case = {"scenario": scenario, "n_envs": n_envs, "n_agents": len(env.world.agents), "arguments": arguments}
    try:
        step = CompiledSimulation(env.simulation, env.tensor_state, group_actions)
    except TraceError as reason:
        return {**case, "reason": str(reason)}
    seconds = time.perf_counter() - started
    inputs = [*step.state_layout.pack(env.tensor_state.read()), *group_actions]
    actions = [
        tensordict.get((group, "action"))[:, i] for group in env.group_map for i in range(len(env.group_map[group]))
    ]
    world = env.simulation.world
    plain, compiled = medians(
        lambda: world.step(list(actions)),
        lambda: step.compiled([*inputs, *step.graph.draw()]),
        rounds=max(10, min(60, 30_000 // n_envs)),
        calls=5,
    )
    return {
        **case,
        "plain_ms": round(plain, 3),
        "compiled_ms": round(compiled, 3),
        "ratio": round(plain / compiled, 1),
        "compile_seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure the chosen scenarios, keep the others' results."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    names = [name for name in sys.argv[1:] or ARGUMENTS if name != "agents"]
    cases = [(name, n, ARGUMENTS[name]) for name in names for n in FEWER_SIZES.get(name, SIZES)]
    if not sys.argv[1:] or "agents" in sys.argv[1:]:
        fields: dict[int, dict[str, Any]] = {30: LARGER_FIELD}
        cases += [("navigation", 60, {"n_agents": n, "shared_rew": False, **fields.get(n, {})}) for n in N_AGENTS]
    for name, n_envs, arguments in cases:
        row = compare(name, n_envs, arguments)
        print(row, flush=True)
        same = [
            old for old in rows if [old[k] for k in ("scenario", "n_envs", "arguments")] == [name, n_envs, arguments]
        ]
        rows = [*(old for old in rows if old not in same), row]
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
