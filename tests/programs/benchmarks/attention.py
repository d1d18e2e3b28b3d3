"""Time and memory of an update with an attention critic or a perceptron.

Run ``python -m tests.programs.benchmarks.attention``.

50 agents, hidden layers of 64, batches of 256, one thread of a CPU, nothing compiled. Time is the process's own CPU
time, the least of many updates taken in turn; memory is how far one update moves the process's peak. Results go to
docs/results/attention.json.
"""

from __future__ import annotations

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

RESULTS = ROOT / "docs" / "results" / "attention.json"
N_AGENTS, FEATURES, ACTIONS, WIDTH, BATCH, REPEATS = 50, 18, 2, 64, 256, 30
BOUNDS = ((-1.0,) * ACTIONS,) * N_AGENTS, ((1.0,) * ACTIONS,) * N_AGENTS
GROUP = GroupSpec("agents", N_AGENTS, FEATURES, ActionSpec("continuous", (ACTIONS,), *BOUNDS))
TEAM = TeamSpec((GROUP,))
PERCEPTRON = partial(MultiAgentMLP, num_cells=(WIDTH, WIDTH))
LAYOUTS: dict[str, dict[str, Any]] = {
    "own observation": {"sees": "observation"},
    "team, one row per agent": {"heads": "network"},
    "team, one head per agent": {},
}
ATTENTION = "attention"


def critic_of(layout: str, of_actions: bool) -> torch.nn.Module:
    """A critic with two hidden layers; the first of the attention critic is its encoders'."""
    if layout == ATTENTION:
        head = partial(MultiAgentMLP, num_cells=(WIDTH,))
        return AttentionCritic(TEAM, GROUP, head, of_actions=of_actions, embed_dim=WIDTH)
    make: Any = action_value_critic if of_actions else value_critic
    return make(TEAM, GROUP, PERCEPTRON, **LAYOUTS[layout])


def batch() -> TensorDict:
    """Random transitions."""
    keys, agents = GROUP.keys, (BATCH, N_AGENTS)
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


def update(algorithm: str, layout: str) -> Callable[[], Any]:
    """One gradient step of actor and critic on a batch."""
    torch.manual_seed(0)
    inputs = own_observation(GROUP)
    of_actions = algorithm == "maddpg"
    network = PERCEPTRON(FEATURES, ACTIONS if of_actions else 2 * ACTIONS, N_AGENTS)
    critic: Any = critic_of(layout, of_actions)
    if of_actions:
        actor = MultiAgentDeterministicActor(GROUP, inputs, network)
        loss: Any = MADDPGLoss({"agents": actor}, {"agents": critic}, gamma=0.9)
    else:
        loss = MAPPOLoss(MultiAgentActor(GROUP, inputs, network), critic, keys=GROUP.keys)
    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    step = GradientStep({"agents": loss}, torch.optim.Adam(learned, fused=True), 5.0)
    return partial(step, batch())


def milliseconds(algorithm: str) -> dict[str, float]:
    """Of each layout's update."""
    updates = {layout: update(algorithm, layout) for layout in (*LAYOUTS, ATTENTION)}
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


def main() -> None:
    """Measure, print a table, and write the results."""
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        print(own_megabytes(*sys.argv[1:3]))
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    for algorithm in ("mappo", "maddpg"):
        times = milliseconds(algorithm)
        results[algorithm] = {
            layout: {"milliseconds": round(times[layout], 1), "megabytes": round(megabytes(algorithm, layout), 1)}
            for layout in times
        }
        of_attention = results[algorithm][ATTENTION]
        for layout, figures in results[algorithm].items():
            ratios = [of_attention[name] / figures[name] for name in figures]
            print(f"| {algorithm} | {layout} | " + " | ".join(f"{v}" for v in figures.values()), end=" | ")
            print(" | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
