"""Compare every shipped VMAS scenario's compiled step with its eager one.

Run ``python -m tests.programs.scenarios.compiled_scenarios``.

The compiled step starts from the eager run's state at every step, resets among them. Writes
docs/results/compiled_scenarios.json and the table in docs/environments.md. Arguments choose single scenarios;
without any, those that have no result yet are measured.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.envs import EnvBase, InitTracker, TransformedEnv

from ctde_kit.collectors.compiled_rollout_step import CompiledRolloutStep
from ctde_kit.envs.vmas import VmasEnv, shipped_scenarios
from ctde_kit.graph import TraceError
from ctde_kit.specs import TeamSpec
from tests.programs.marked import write_between

DOCS = Path(__file__).parents[3] / "docs"
RESULTS, PAGE = DOCS / "results" / "compiled_scenarios.json", DOCS / "environments.md"
TOLERANCE = 1e-5


class RandomAction(nn.Module):
    """Uniform actions, whatever the observation ``[n_envs, n_agents, F]``."""

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, observation: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(*observation.shape[:-1], self.low.shape[-1])


def random_policy(env: EnvBase) -> TensorDictSequential:
    """Uniform actions for every group."""
    modules = []
    for group in TeamSpec.from_env(env):
        module = RandomAction(torch.tensor(group.action.low), torch.tensor(group.action.high))
        modules.append(TensorDictModule(module, [group.keys.observation], [group.keys.action]))
    return TensorDictSequential(*modules)


def compare(scenario: str, *, steps: int = 200, n_envs: int = 6, max_steps: int = 40) -> dict[str, Any]:
    """Largest differences, in units of ``1 + |x|``, between the compiled and the eager step over ``steps`` steps."""
    env = TransformedEnv(VmasEnv(scenario, num_envs=n_envs, max_steps=max_steps, seed=1), InitTracker())
    policy = random_policy(env)
    torch.manual_seed(0)
    started = time.perf_counter()
    try:
        step = CompiledRolloutStep(env, policy, env.reset())
    except TraceError as reason:
        return {"scenario": scenario, "compiled": False, "reason": str(reason)}
    seconds = time.perf_counter() - started
    worst, resets = _resynchronized(step, steps, n_envs)
    return {
        "scenario": scenario,
        "compiled": True,
        "operations": len(step.graph.module.graph.nodes),
        "draws": len(step.graph.draws),
        "seconds": round(seconds, 1),
        "difference": worst,
        "resets": resets,
        "drift": _drift(step, steps),
    }


def _inputs(step: CompiledRolloutStep, n_envs: int) -> list[Tensor]:
    root = step.env.reset()
    fresh = step.fresh_layout.pack(step.base_env.draw_initial_states(n_envs))
    state = step.state_layout.pack(step.base_env.tensor_state.read())
    counts = [torch.zeros((), dtype=torch.long), torch.tensor(n_envs)]
    return [*state, *step.root_layout.pack(root), *fresh, torch.zeros(n_envs, 1, dtype=torch.bool), *counts]


def _both(step: CompiledRolloutStep, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of the eager and of the compiled step, with the same random numbers."""
    random, stream = torch.get_rng_state(), step.base_env.random_stream.state_dict()
    eager = step.eager_step(inputs)
    torch.set_rng_state(random)
    step.base_env.random_stream.load_state_dict(stream)
    return eager, list(step.compiled([*inputs, *step.graph.draw()]))


def _following(step: CompiledRolloutStep, inputs: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
    n_step, n_root = len(step.step_layout.dtypes), len(step.root_layout.dtypes)
    n_fresh = len(step.fresh_layout.dtypes)
    root, state = outputs[n_step : n_step + n_root], outputs[n_step + n_root : -3]
    return [*state, *root, *inputs[-3 - n_fresh : -3], outputs[-3], *inputs[-2:]]


def _resynchronized(step: CompiledRolloutStep, steps: int, n_envs: int) -> tuple[float, int]:
    inputs, worst, resets = _inputs(step, n_envs), 0.0, 0
    for t in range(steps):
        eager, compiled = _both(step, inputs)
        shown = len(step.step_layout.dtypes)
        for expected, found in zip(eager[:shown], compiled[:shown], strict=True):
            worst = max(worst, _difference(expected, found))
        inputs = _following(step, inputs, eager)
        # Resets in the middle of episodes, too, one env after another.
        inputs[-3] = inputs[-3] | (torch.arange(n_envs) == t // 7 % n_envs).unsqueeze(-1) & (t % 7 == 0)
        resets += int(inputs[-3].sum())
    return worst, resets


def _drift(step: CompiledRolloutStep, steps: int) -> float:
    """How far the compiled run is from the eager one in the end, each going its own way."""
    inputs = _inputs(step, step.env.batch_size[0])
    eager_inputs, compiled_inputs, apart = inputs, inputs, 0.0
    for _ in range(steps):
        random, stream = torch.get_rng_state(), step.base_env.random_stream.state_dict()
        eager = step.eager_step(eager_inputs)
        torch.set_rng_state(random)
        step.base_env.random_stream.load_state_dict(stream)
        compiled = list(step.compiled([*compiled_inputs, *step.graph.draw()]))
        eager_inputs = _following(step, eager_inputs, eager)
        compiled_inputs = _following(step, compiled_inputs, compiled)
        apart = _difference(eager[0], compiled[0])
    return apart


def _difference(expected: Tensor, found: Tensor) -> float:
    if bool((expected.isnan() != found.isnan()).any()):
        return float("inf")
    expected, found = expected.double().nan_to_num(), found.double().nan_to_num()
    return float(((expected - found).abs() / (1 + expected.abs())).max())


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    if not row["compiled"]:
        return f"| `{row['scenario']}` | eager | {row['reason'].replace('|', '/')} | | |"
    return (
        f"| `{row['scenario']}` | compiled | {row['operations']} operations | {row['difference']:.1e} "
        f"| {row['drift']:.1e} |"
    )


def write_table(rows: list[dict[str, Any]]) -> None:
    """Replace what stands between the page's two marks."""
    columns = "operations in the graph, or why there is no graph"
    header = [f"| scenario | step | {columns} | largest difference | drift |", "|---|---|---|---|---|"]
    text = "\n".join([*header, *map(line, rows)])
    write_between(PAGE, "compiled scenarios", text)


def main() -> None:
    """Measure the chosen scenarios, or those without a result, and write the table."""
    warnings.simplefilter("ignore")
    rows = {row["scenario"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for scenario in sys.argv[1:] or [name for name in shipped_scenarios() if name not in rows]:
        rows[scenario] = compare(scenario)
        print(rows[scenario], flush=True)
        RESULTS.write_text(json.dumps([rows[name] for name in sorted(rows)], indent=1) + "\n")
    write_table([rows[name] for name in sorted(rows)])


if __name__ == "__main__":
    main()
