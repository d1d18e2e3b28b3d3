"""How frames per second grow with the number of collectors: a model, fitted to few of them, beside many.

Run ``python -m tests.programs.benchmarks.collector_scaling``, with the extra ``ray`` and 13 GB of memory.

Envs sleep instead of computing, so that one machine has room for 32 collectors; the learner does nothing. Results go to
docs/results/collector_scaling.json, docs/images/collector_scaling.png and docs/scale_out.md.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ctde_kit.cores import usable_cores
from ctde_kit.distributed import RayProcesses, RemoteRollouts
from ctde_kit.distributed.messages import pack
from tests.programs.benchmarks.scaling_model import Collector, Costs, collectors_at_half, fit, frames_per_second
from tests.programs.benchmarks.sleeping_env import N_ENVS, STEPS, StepSeconds, build
from tests.programs.benchmarks.training_speed import ROOT
from tests.programs.learning.measure import machine
from tests.programs.marked import write_between

RESULTS, PAGE = ROOT / "docs" / "results" / "collector_scaling.json", ROOT / "docs" / "scale_out.md"
PLOT = ROOT / "docs" / "images" / "collector_scaling.png"
DELAYS = (5, 20, 50, 100)  # milliseconds that a step sleeps
FITTED, PREDICTED, PROJECTED = (1, 2, 4, 8), (16, 32), 1000
FRAMES = N_ENVS * STEPS
ROUNDS = 5


def alone() -> dict[int, Collector]:
    """One collector in this process, without Ray, by delay: what its steps take."""
    collector = build()
    batches, seconds, computing = iter(collector), dict[int, float](), dict[int, float]()
    for delay in DELAYS:
        set_delay(collector.policy, delay)
        next(batches)
        times: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            begin = time.perf_counter(), time.process_time()
            next(batches)
            times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        seconds[delay], computing[delay] = (statistics.median(column) for column in zip(*times, strict=True))
    return {delay: Collector(seconds[delay], computing[delay], FRAMES) for delay in DELAYS}


def together(n: int) -> dict[int, list[float]]:
    """Seconds of each batch of ``n`` collectors in Ray, by delay, the delays in turn; a first round is not counted."""
    local = build()
    rollouts = RemoteRollouts(
        build,
        local.policy,
        local.env,
        processes=partial(RayProcesses, timeout=600),
        collectors=n,
        frames_per_batch=n * FRAMES,
        threads=1,
    )
    batches = iter(rollouts)
    times: dict[int, list[float]] = {delay: [] for delay in DELAYS}
    for round_ in range(ROUNDS + 1):
        for delay, measured in times.items():
            set_delay(local.policy, delay)
            begin = time.perf_counter()
            next(batches)
            if round_:
                measured.append(time.perf_counter() - begin)
    rollouts.shutdown()
    return times


def set_delay(policy: StepSeconds, milliseconds: float) -> None:
    with torch.no_grad():
        policy.seconds.fill_(milliseconds / 1000)


def fitted(collectors: dict[int, Collector], times: dict[int, dict[int, list[float]]]) -> Costs:
    """The costs that the measurements of few collectors show, of all delays together."""
    cells = [(n, delay) for n in FITTED for delay in DELAYS]
    beyond = [statistics.median(times[n][delay]) - collectors[delay].seconds for n, delay in cells]
    return fit([n for n, _ in cells], beyond)


def comparison(
    collectors: dict[int, Collector], costs: Costs, processors: int, times: dict[int, dict[int, list[float]]]
) -> list[dict[str, float]]:
    """Frames per second of each number of collectors and delay: measured, the range of its rounds, and the model's."""
    rows: list[dict[str, float]] = []
    for delay in DELAYS:
        for n in (*FITTED, *PREDICTED):
            seconds = times[n][delay]
            measured = n * FRAMES / statistics.median(seconds)
            model = frames_per_second(n, collectors[delay], costs, processors)
            span = {"lowest": n * FRAMES / max(seconds), "highest": n * FRAMES / min(seconds)}
            rows.append({"delay": delay, "n": n, "measured": measured, **span, "model": model})
    return rows


def error(row: dict[str, float]) -> float:
    """How far the model is from the measurement, in percent."""
    return 100 * (row["model"] / row["measured"] - 1)


def tables(collectors: dict[int, Collector], costs: Costs, processors: int, rows: list[dict[str, float]]) -> str:
    """What was measured, beside the model, and the projection."""
    worst = max((error(row) for row in rows if row["n"] in FITTED), key=abs)
    lines = [
        f"Fitted: c = {1000 * costs.fixed:.1f} ms, s = {1000 * costs.per_collector:.2f} ms. For {FITTED[0]} to "
        f"{FITTED[-1]} collectors, to which it is fitted, the model is off by at most {abs(worst):.1f} %. Predicted:",
        "",
        "| a step sleeps | collectors | frames/s, predicted | measured | slowest to fastest round | error |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['delay']} ms | {row['n']} | {row['model']:,.0f} | {row['measured']:,.0f} | {row['lowest']:,.0f} to "
        f"{row['highest']:,.0f} | {error(row):+.1f} % |"
        for row in rows
        if row["n"] in PREDICTED
    ]
    lines += [
        "",
        f"A projection, not a measurement: {PROJECTED:,} collectors, each with a processor to itself.",
        "",
        "| a step sleeps | own work of a step | one collector, frames/s | "
        f"{PROJECTED:,} collectors | times one | messages take half of the time from | "
        f"all {processors} processors here are busy from |",
        "|---|---|---|---|---|---|---|",
    ]
    for delay, one in collectors.items():
        first, many = (frames_per_second(n, one, costs, None) for n in (1, PROJECTED))
        own = 1000 * one.seconds / STEPS - delay
        lines.append(
            f"| {delay} ms | {own:.2f} ms | {first:,.0f} | {many:,.0f} | {many / first:.0f} | "
            f"{collectors_at_half(one, costs):,.0f} collectors | "
            f"{processors * one.seconds / one.processor_seconds:.0f} collectors |"
        )
    return "\n".join(lines)


def plot(collectors: dict[int, Collector], costs: Costs, processors: int, rows: list[dict[str, float]]) -> None:
    """Frames per second over collectors: measured, the model on this machine, and the projection."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    here, further = np.geomspace(1, PREDICTED[-1], 60), np.geomspace(1, PROJECTED, 120)
    for place, (delay, one) in enumerate(collectors.items()):
        color = f"C{place}"
        axis.plot(here, [frames_per_second(n, one, costs, processors) for n in here], color=color)
        axis.plot(further, [frames_per_second(n, one, costs, None) for n in further], "--", color=color, linewidth=1)
        for counts, filled in ((FITTED, color), (PREDICTED, "none")):
            points = [(row["n"], row["measured"]) for row in rows if row["delay"] == delay and row["n"] in counts]
            label = f"a step sleeps {delay} ms" if counts is FITTED else None
            axis.plot(*zip(*points, strict=True), "o", color=color, markerfacecolor=filled, label=label)
    axis.axhline(FRAMES / costs.per_collector, color="gray", linewidth=0.8, linestyle=":")
    axis.text(
        1, FRAMES / costs.per_collector, "the learner's process can take no more", fontsize=8, color="gray", va="bottom"
    )
    axis.set(xscale="log", yscale="log", xlabel="collectors", ylabel="frames/s")
    axis.set_title("dots: measured (filled: fitted to); lines: model; dashed: projection", fontsize=9)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower right")
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Measure, fit, and write results, plot and page."""
    load, processors, begin = os.getloadavg()[0], usable_cores(), time.perf_counter()
    size = sum(array.nbytes for array in pack(next(iter(build()))).entries.values())
    collectors = alone()
    times: dict[int, dict[int, list[float]]] = {}
    for n in (*FITTED, *PREDICTED):
        times[n] = together(n)
        print(n, {delay: round(statistics.median(seconds), 3) for delay, seconds in times[n].items()}, flush=True)
    costs = fitted(collectors, times)
    rows = comparison(collectors, costs, processors, times)
    told: dict[str, Any] = {
        "seconds": times,
        "alone": {delay: vars(one) for delay, one in collectors.items()},
        "costs": vars(costs),
        "frames_per_second": rows,
        "message_bytes": size,
        "load_before": load,
        "minutes": (time.perf_counter() - begin) / 60,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    plot(collectors, costs, processors, rows)
    last = (
        f"A message has {size / 1000:.0f} kB ({N_ENVS} envs, {STEPS} steps). Medians of {ROUNDS} batches; other "
        f"programs kept the machine at a load of {load:.1f} before this one began. {told['machine']}; {told['date']}."
    )
    write_between(PAGE, "collector scaling", f"{tables(collectors, costs, processors, rows)}\n\n{last}")


if __name__ == "__main__":
    main()
