"""Fill the tables and the plot of docs/benchmarks.md from docs/results.

Run ``python -m tests.programs.benchmarks.page``.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tests.programs.marked import write_between

DOCS = Path(__file__).parents[3] / "docs"
PAGE, RESULTS, PLOT = DOCS / "benchmarks.md", DOCS / "results", DOCS / "images" / "vmas_step.png"


def step_table(results: list[dict[str, Any]]) -> list[str]:
    """VMAS's step against the compiled one."""
    lines = [
        "| scenario | agents | envs | VMAS, ms | compiled, ms | ratio | trace and compile, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(results, key=lambda row: (row["scenario"], row["n_agents"], row["n_envs"])):
        case = f"| {row['scenario']} | {row['n_agents']} | {row['n_envs']} |"
        if "reason" in row:
            lines.append(f"{case} | eager: {row['reason']} | | |")
            continue
        times = f"{row['plain_ms']:.2f} | {row['compiled_ms']:.2f}"
        lines.append(f"{case} {times} | {row['ratio']} | {row['compile_seconds']} |")
    return lines


def training_table(results: list[dict[str, Any]]) -> list[str]:
    """Whole iterations beside BenchMARL's."""
    lines = [
        "| recipe, task, network | compiled | eager | BenchMARL | TorchRL | to BenchMARL | to TorchRL | to eager |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        speed = row["frames_per_second"]
        network = "x".join(map(str, (row["cells"][0], len(row["cells"]))))
        lines.append(
            f"| {row['algorithm']}, {row['task']}, MLP {network} | {speed['compiled']:,} | {speed['plain']:,} | "
            f"{_of(speed, 'benchmarl')} | {_of(speed, 'torchrl')} | {row.get('ratio_to_benchmarl', '')} | "
            f"{row.get('ratio_to_torchrl', '')} | {row['ratio_to_plain']} |"
        )
    return lines


def _of(speed: dict[str, int], program: str) -> str:
    return f"{speed[program]:,}" if program in speed else "no such recipe"


def agreement_table(result: dict[str, Any]) -> list[str]:
    """All seeds, each way."""
    last = len(result["runs"]["on"]) - 1
    lines = [f"| | seeds 0 to {last}, greedy return | seconds per run |", "|---|---|---|"]
    for name, runs in result["runs"].items():
        returns = ", ".join(f"{run['return']:.3f}" for run in runs)
        seconds = ", ".join(f"{run['seconds']:.0f}" for run in runs)
        lines.append(f"| compile={name} | {returns} | {seconds} |")
    low, high = result["interval_of_the_difference"]
    return [
        *lines,
        "",
        f"95 % bootstrap interval of the difference of the means: [{low:.3f}, {high:.3f}]. `{result['command']}`",
    ]


def iterations_table(result: dict[str, Any]) -> list[str]:
    """How far compiled iterations end from eager ones, where both clipped as many samples and where not."""
    lines = ["| iterations | how many | median distance | largest |", "|---|---|---|---|"]
    rows = result["iterations"]
    for name, has in (("as many samples clipped on both sides", False), ("more samples clipped on one side", True)):
        apart = [row["apart"] for row in rows if bool(row["other_clips"]) == has]
        if apart:
            lines.append(f"| {name} | {len(apart)} | {statistics.median(apart):.1e} | {max(apart):.1e} |")
    return [*lines, "", f"`{result['command']}`; {result['machine']}; {result['date']}."]


def rounds_table(result: dict[str, Any]) -> list[str]:
    """Whole iterations beside other programs', with the rounds apart."""
    lines = ["| program | frames per second | rounds |", "|---|---|---|"]
    for told in result.values():
        for program, speed in told["programs"].items():
            rounds = ", ".join(f"{found:,}" for found in speed["rounds"])
            lines.append(f"| {program} | {speed['frames_per_second']:,} | {rounds} |")
    machines = dict.fromkeys(f"{told['machine']}; {told['date']}." for told in result.values())
    return [*lines, "", " ".join(machines)]


def worker_table(result: dict[str, Any]) -> list[str]:
    """Rollouts in worker processes, beside the environments alone."""
    lines = ["| environments | program | frames per second | rounds |", "|---|---|---|---|"]
    for setting, programs in result["settings"].items():
        for program, speed in programs.items():
            rounds = ", ".join(f"{found:,}" for found in speed["rounds"])
            lines.append(f"| {setting} | {program} | {speed['frames_per_second']:,} | {rounds} |")
    return [*lines, "", f"{result['machine']}; {result['date']}. `{result['command']}`"]


def compile_table(results: list[dict[str, Any]]) -> list[str]:
    """Seconds until the first compiled rollout and update."""
    lines = ["| task | run | rollout, s | update, s | together, s |", "|---|---|---|---|---|"]
    for row in results:
        rollout, update = row["rollout_seconds"], row["update_seconds"]
        lines.append(f"| {row['task']} | {row['run']} | {rollout:.1f} | {update:.1f} | {rollout + update:.1f} |")
    return lines


def memory_table(result: dict[str, Any]) -> list[str]:
    """Resident memory over iterations."""
    lines = ["| iterations | resident memory, MB |", "|---|---|"]
    return [*lines, *(f"| {n:,} | {megabytes:.1f} |" for n, megabytes in result["megabytes"])]


def parts_table(result: dict[str, Any]) -> list[str]:
    """Plain parts beside TorchRL's."""
    return ["| what | ctde_kit | beside | | ratio |", "|---|---|---|---|---|", *result["rows"]]


def plot(results: list[dict[str, Any]]) -> None:
    """Ratios over the number of envs, and over the number of agents."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    results = [row for row in results if "reason" not in row]
    usual = [row for row in results if row["arguments"].get("n_agents") in (None, 3, 4)]
    for scenario in sorted({row["scenario"] for row in usual}):
        rows = sorted((row for row in usual if row["scenario"] == scenario), key=lambda row: row["n_envs"])
        fewest = min(row["n_agents"] for row in rows)
        rows = [row for row in rows if row["n_agents"] == fewest]
        axes[0].plot([row["n_envs"] for row in rows], [row["ratio"] for row in rows], "o-", label=scenario)
    agents = sorted(
        (row for row in results if row["scenario"] == "navigation" and row["n_envs"] == 60),
        key=lambda row: row["n_agents"],
    )
    axes[1].plot(
        [row["n_agents"] for row in agents], [row["ratio"] for row in agents], "o-", label="navigation, 60 envs"
    )
    for axis, label in zip(axes, ("environments", "agents"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="VMAS / compiled, time per step")
        ticks = sorted({int(x) for line in axis.get_lines() for x in line.get_xdata()})
        axis.set_xticks(ticks, labels=[f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)
    plt.close(figure)


TABLES = {
    "vmas_step": step_table,
    "training_speed": training_table,
    "recurrent_speed": rounds_table,
    "jaxmarl_speed": rounds_table,
    "worker_speed": worker_table,
    "compile_time": compile_table,
    "memory": memory_table,
    "compile_agreement": agreement_table,
    "compiled_iterations": iterations_table,
    "plain_parts": parts_table,
}


def main() -> None:
    """Replace what stands between the page's marks."""
    for name, table in TABLES.items():
        result = json.loads((RESULTS / f"{name}.json").read_text())
        write_between(PAGE, name, "\n".join(table(result)))
    plot(json.loads((RESULTS / "vmas_step.json").read_text()))


if __name__ == "__main__":
    main()
