"""Time and memory of an update with an attention critic or a perceptron.

Run ``python -m tests.programs.benchmarks.attention [eager|compiled]``.

Hidden layers of 64, batches of 256, one thread of a CPU; 50 agents and nothing compiled, and 8 and 50 agents compiled.
Time is the process's own CPU time, the least of many updates taken in turn; memory is how far one update moves the
process's peak. Results go to docs/results/attention.json.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from ctde_kit.modules import (
    AttentionCritic,
    MultiAgentActor,
    MultiAgentDeterministicActor,
    MultiAgentMLP,
    action_value_critic,
    own_observation,
    value_critic,
)
from ctde_kit.objectives import MADDPGLoss, MAPPOLoss
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
from ctde_kit.training import GradientStep
from tests.programs.benchmarks.training_speed import ROOT
from tests.programs.learning.measure import machine

RESULTS = ROOT / "docs" / "results" / "attention.json"
N_AGENTS, FEATURES, ACTIONS, WIDTH, BATCH, REPEATS = 50, 18, 2, 64, 256, 30
COMPILED = (8, 50)
PERCEPTRON = partial(MultiAgentMLP, num_cells=(WIDTH, WIDTH))
LAYOUTS: dict[str, dict[str, Any]] = {
    "own observation": {"sees": "observation"},
    "team, one row per agent": {"heads": "network"},
    "team, one head per agent": {},
}
ATTENTION = "attention"


def group_of(n_agents: int) -> GroupSpec:
    """Agents with two numbers as action."""
    bounds = ((-1.0,) * ACTIONS,) * n_agents, ((1.0,) * ACTIONS,) * n_agents
    return GroupSpec("agents", n_agents, FEATURES, ActionSpec("continuous", (ACTIONS,), *bounds))


def critic_of(group: GroupSpec, layout: str, of_actions: bool) -> torch.nn.Module:
    """A critic with two hidden layers; the first of the attention critic is its encoders'."""
    team = TeamSpec((group,))
    if layout == ATTENTION:
        head = partial(MultiAgentMLP, num_cells=(WIDTH,))
        return AttentionCritic(team, group, head, of_actions=of_actions, embed_dim=WIDTH)
    make: Any = action_value_critic if of_actions else value_critic
    return make(team, group, PERCEPTRON, **LAYOUTS[layout])


def batch(group: GroupSpec) -> TensorDict:
    """Random transitions."""
    keys, agents = group.keys, (BATCH, group.n_agents)
    following = TensorDict({}, [BATCH])
    data = TensorDict({"next": following}, [BATCH])
    for part in (data, following):
        part.set(keys.observation, torch.randn(*agents, FEATURES))
    data[keys.action] = torch.rand(*agents, ACTIONS) * 1.8 - 0.9
    data[keys.action_log_prob] = torch.randn(agents)
    for key in (keys.advantage, keys.value_target, keys.state_value, ("next", *keys.reward)):
        data[key] = torch.randn(*agents, 1)
    data["next", "done"] = data["next", "terminated"] = torch.zeros(BATCH, 1, dtype=torch.bool)
    return data


def update(algorithm: str, layout: str, n_agents: int = N_AGENTS, *, compile: bool = False) -> Callable[[], Any]:
    """One gradient step of actor and critic on a batch."""
    torch.manual_seed(0)
    group = group_of(n_agents)
    inputs = own_observation(group)
    of_actions = algorithm == "maddpg"
    network = PERCEPTRON(FEATURES, ACTIONS if of_actions else 2 * ACTIONS, n_agents)
    critic: Any = critic_of(group, layout, of_actions)
    if of_actions:
        actor = MultiAgentDeterministicActor(group, inputs, network)
        loss: Any = MADDPGLoss({"agents": actor}, {"agents": critic}, gamma=0.9)
    else:
        loss = MAPPOLoss(MultiAgentActor(group, inputs, network), critic, keys=group.keys)
    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    step = GradientStep({"agents": loss}, torch.optim.Adam(learned, fused=True), 5.0, compile=compile)
    return partial(step, batch(group))


def milliseconds(algorithm: str, n_agents: int = N_AGENTS, *, compile: bool = False) -> dict[str, float]:
    """Of each layout's update."""
    updates = {layout: update(algorithm, layout, n_agents, compile=compile) for layout in (*LAYOUTS, ATTENTION)}
    for run in updates.values():
        for _ in range(3):  # compiling, where it is asked for, is not counted
            run()
    least = dict.fromkeys(updates, float("inf"))
    for _ in range(REPEATS):
        for layout, run in updates.items():
            before = time.process_time()
            run()
            least[layout] = min(least[layout], 1e3 * (time.process_time() - before))
    return least


def peak_megabytes() -> float:
    """The most that this process held; ``getrusage`` counts what its parent held, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def megabytes(algorithm: str, layout: str) -> float:
    """How far updates move the peak of a process of their own."""
    command = [sys.executable, "-m", "tests.programs.benchmarks.attention", algorithm, layout]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[-1])


def own_megabytes(algorithm: str, layout: str) -> float:
    """The same in this process, which has done nothing else."""
    run = update(algorithm, layout)
    torch.randn(8, 8).requires_grad_(True).sum().backward()  # what the first backward pass of all loads
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = peak_megabytes()
    for _ in range(3):
        run()
    return peak_megabytes() - before


def eager() -> dict[str, Any]:
    """Time and memory of each algorithm's updates by layout, nothing compiled."""
    found: dict[str, Any] = {}
    for algorithm in ("mappo", "maddpg"):
        times = milliseconds(algorithm)
        found[algorithm] = {
            layout: {"milliseconds": round(times[layout], 1), "megabytes": round(megabytes(algorithm, layout), 1)}
            for layout in times
        }
        of_attention = found[algorithm][ATTENTION]
        for layout, figures in found[algorithm].items():
            ratios = [of_attention[name] / figures[name] for name in figures]
            print(f"| {algorithm} | {layout} | " + " | ".join(f"{v}" for v in figures.values()), end=" | ")
            print(" | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)
    return found


def compiled() -> dict[str, Any]:
    """Time of each algorithm's compiled updates by number of agents and layout."""
    found: dict[str, Any] = {}
    for algorithm in ("mappo", "maddpg"):
        for n_agents in COMPILED:
            times = milliseconds(algorithm, n_agents, compile=True)
            found.setdefault(algorithm, {})[str(n_agents)] = {layout: round(one, 2) for layout, one in times.items()}
            for layout, one in times.items():
                print(f"| {algorithm} | {n_agents} | {layout} | {one:.2f} | {times[ATTENTION] / one:.2f} |", flush=True)
    return found


def main() -> None:
    """Measure, print tables, and write the results; those of the other kind stay."""
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        print(own_megabytes(*sys.argv[1:3]))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for kind, measure in (("eager", eager), ("compiled", compiled)):
        if sys.argv[1:] in ([], [kind]):
            results[kind] = {**measure(), "machine": machine(), "date": datetime.date.today().isoformat()}
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
