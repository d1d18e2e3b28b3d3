"""Time and memory of MAPPO's update with a channel against a perceptron.

Run ``python -m tests.programs.benchmarks.channels``.

50 agents, hidden layers of 64, 256 steps per minibatch, on a CPU. Results go to docs/results/channels.json and into
docs/communication.md.
"""

from __future__ import annotations

import datetime
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from ctde_kit.modules import MultiAgentActor, own_observation, value_critic
from ctde_kit.objectives import MAPPOLoss
from ctde_kit.recipes import BiCNetNetwork, CommNetNetwork, MLPNetwork, TarMACNetwork
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
from ctde_kit.training import GradientStep
from tests.programs.benchmarks.training_speed import ROOT
from tests.programs.learning.measure import machine
from tests.programs.marked import write_between

N_AGENTS, WIDTH, BATCH = 50, 64, 256
RESULTS, PAGE = ROOT / "docs" / "results" / "channels.json", ROOT / "docs" / "communication.md"
# The first layer is the encoder's, the second the channel's.
NETWORKS: dict[str, Any] = {
    "mlp": MLPNetwork(num_cells=[WIDTH, WIDTH]),
    "bicnet": BiCNetNetwork(hidden_size=WIDTH, num_cells=[]),
    "bicnet, lstm": BiCNetNetwork(hidden_size=WIDTH, num_cells=[], cell="lstm"),
    "commnet, 1 round": CommNetNetwork(hidden_size=WIDTH, num_cells=[], rounds=1),
    "commnet, 2 rounds": CommNetNetwork(hidden_size=WIDTH, num_cells=[], rounds=2),
    "tarmac, 1 round": TarMACNetwork(hidden_size=WIDTH, num_cells=[], rounds=1),
    "tarmac, 2 rounds": TarMACNetwork(hidden_size=WIDTH, num_cells=[], rounds=2),
}


def update(network: Any) -> tuple[GradientStep, TensorDict]:
    """A gradient step with ``network`` as actor and a perceptron as each agent's critic, and its minibatch."""
    torch.manual_seed(0)
    bounds = ((-1.0,) * 2,) * N_AGENTS, ((1.0,) * 2,) * N_AGENTS
    group = GroupSpec("agents", N_AGENTS, 18, ActionSpec("continuous", (2,), *bounds))
    actor = MultiAgentActor(group, own_observation(group), network.build(18, 4, N_AGENTS))
    critic = value_critic(TeamSpec((group,)), group, NETWORKS["mlp"].build, sees="observation")
    loss = MAPPOLoss(actor, critic, entropy_coeff=0.01)
    batch = TensorDict({"agents": {"observation": torch.randn(BATCH, N_AGENTS, 18)}}, [BATCH])
    with torch.no_grad():
        actor(batch)
    for name in ("advantage", "value_target", "state_value"):
        batch["agents", name] = torch.randn(BATCH, N_AGENTS, 1)
    return GradientStep({"agents": loss}, torch.optim.Adam(loss.parameters(), fused=True), 5.0), batch


def peak_megabytes(name: str) -> float:
    """By how much one update raises the peak of a process that has made a small one."""
    step, batch = update(NETWORKS[name])
    step(batch[:2].clone())
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    before = _peak_kilobytes()
    step(batch)
    return (_peak_kilobytes() - before) / 1024


def _peak_kilobytes() -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1))


def processor_milliseconds(steps: list[tuple[GradientStep, TensorDict]], rounds: int = 9) -> list[float]:
    """Median processor time of a call of each, which take turns: other jobs on the machine do not count."""
    times: list[list[float]] = [[] for _ in steps]
    for round_ in range(rounds + 1):
        for (step, batch), collected in zip(steps, times, strict=True):
            start = time.process_time()
            step(batch)
            if round_ > 0:
                collected.append(1000 * (time.process_time() - start))
    return [statistics.median(collected) for collected in times]


def main() -> None:
    """Measure all, each one's memory in a process of its own; with a name print that one's megabytes."""
    torch.set_num_threads(1)
    if sys.argv[1:]:
        print(peak_megabytes(sys.argv[1]))
        return
    steps = [update(network) for network in NETWORKS.values()]
    times = processor_milliseconds(steps)
    command = [sys.executable, "-m", "tests.programs.benchmarks.channels"]
    memory = [
        float(subprocess.run([*command, name], capture_output=True, text=True, check=True).stdout) for name in NETWORKS
    ]
    rows = ["| actor | processor time | of the MLP's | memory | of the MLP's |", "|---|---|---|---|---|"]
    for name, milliseconds, megabytes in zip(NETWORKS, times, memory, strict=True):
        more = f"{milliseconds / times[0]:.1f} | {megabytes:.0f} MB | {megabytes / memory[0]:.1f}"
        rows.append(f"| {name} | {milliseconds:.0f} ms | {more} |")
    told = f"{machine()}; {datetime.date.today().isoformat()}."
    RESULTS.write_text(json.dumps({"rows": rows, "told": told}, indent=1) + "\n")
    write_between(PAGE, "benchmark", "\n".join([*rows, "", told]))
    print("\n".join([*rows, told]))


if __name__ == "__main__":
    main()
