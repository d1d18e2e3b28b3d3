"""``python -m tests.reliability.measure``: the session ``reliability``; its figures go to ``docs/reliability.md``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Children are forked: a pool of threads would not come along.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch

# What a command imports late, once for all children.
from ctde_kit.files import replacing, seal_holds
from tests.reliability import damage, disks, endurance, kills, payloads, two_processes
from tests.reliability.cases import CASES

DOCS = Path(__file__).parents[2] / "docs"
PAGE, RESULTS = DOCS / "reliability.md", DOCS / "results" / "reliability.json"
# What stands above is written by hand.
FIGURES = "## Figures"
QUICK_CASES = ("MAPPO, MLP",)


def measure_kills(cwd: Path, cases: list[str], count: int) -> dict[str, Any]:
    """``count`` kills over ``cases``, half at random moments and half at steps of writing."""
    draw, found = random.Random(0), {}
    for index, case in enumerate(cases):
        folder = cwd / f"case_{index}"
        seconds, steps = kills.whole_run(folder, case)
        share = count // len(cases) + (index < count % len(cases))
        wrong = {}
        for kill in range(share):
            run = f"killed_{kill}"
            if kill % 2:
                wrong[run] = kills.kill_at_random(folder, case, seconds, draw, run)
            else:
                wrong[run] = kills.kill_at_step(folder, case, draw.randrange(steps), run)
        found[case] = {"kills": share, "steps": steps, "wrong": _wrong(wrong)}
        print(f"{case}: {found[case]}", flush=True)
    return found


def measure_steps(cwd: Path) -> dict[str, Any]:
    """A kill at every step of the writing of one checkpoint, and of what precedes and follows it."""
    kills.whole_run(cwd, QUICK_CASES[0])
    names = (cwd / "steps").read_text().splitlines()
    # From the second-last checkpoint but one to the next. Of the many small writes into a file two stand for all.
    ends = [index for index, name in enumerate(names) if name == "after replace"]
    steps = [
        index
        for index in range(ends[-4], ends[-2])
        if "write" not in names[index] or "write" not in names[index - 1] or "write" not in names[index + 1]
    ]
    wrong = {f"step_{step}": kills.kill_at_step(cwd, QUICK_CASES[0], step, f"step_{step}") for step in steps}
    return {"steps": [names[step] for step in steps], "wrong": _wrong(wrong)}


def measure_disks(cwd: Path, points: Iterable[str]) -> dict[str, list[str]]:
    """A full disk at each point."""
    if not (cwd / "whole").exists():
        kills.whole_run(cwd, disks.CASE)
    return {point: disks.full_disk_at(cwd, point) for point in points}


def measure_two_processes(cwd: Path, ways: Iterable[str]) -> dict[str, list[str]]:
    """Two processes on one directory."""
    if not (cwd / "whole").exists():
        kills.whole_run(cwd, two_processes.CASE)
    return {way: two_processes.two_processes(cwd, way) for way in ways}


def measure_endurance(cwd: Path, cases: Iterable[str], iterations: int) -> dict[str, dict[str, Any]]:
    """So many iterations of each case."""
    found = {}
    for index, case in enumerate(cases):
        found[case] = endurance.endure(cwd / f"endurance_{index}", case, iterations)
        print(f"{case}: {found[case]}", flush=True)
    return found


def _wrong(found: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: wrong for name, wrong in found.items() if wrong}


def measure_checksum() -> dict[str, float]:
    """Seconds per GB of a checkpoint of 0.5 GB: writing it with and without a checksum, and comparing it."""
    content = {"items": torch.rand(125_000_000)}
    with tempfile.TemporaryDirectory() as folder:
        path, seconds = Path(folder) / "checkpoint", {}
        for name, sealed in (("written", False), ("written with a checksum", True)):
            begun = time.perf_counter()
            with replacing(path, sealed=sealed) as file:
                torch.save(content, file)
            seconds[name] = time.perf_counter() - begun
        begun = time.perf_counter()
        with open(path, "rb") as file:
            assert seal_holds(file)
        seconds["compared"] = time.perf_counter() - begun
    return {name: round(2 * value, 2) for name, value in seconds.items()}


# The parts of the session, in the order of the page.
PARTS: dict[str, Callable[[Path], Any]] = {
    "kills": lambda cwd: measure_kills(cwd, list(CASES), 50),
    "steps": measure_steps,
    "flips": lambda cwd: damage.flip_all(damage.damaged_run(cwd), 1000),
    "full disk": lambda cwd: measure_disks(cwd, disks.POINTS),
    "two processes": lambda cwd: measure_two_processes(cwd, two_processes.WAYS),
    "payloads": payloads.attack_all,
    "endurance": lambda cwd: measure_endurance(cwd, endurance.CASES, 10_000),
    "checksum": lambda cwd: measure_checksum(),
}


def quick(cwd: Path) -> dict[str, Any]:
    """A little of some parts, all compared to the same run."""
    killed = measure_kills(cwd, list(QUICK_CASES), 1)
    return {
        "kills": killed,
        "full disk": measure_disks(cwd / "case_0", ("metrics",)),
        "two processes": measure_two_processes(cwd / "case_0", ("start and start",)),
        "endurance": endurance.endure_a_little(cwd / "endurance", 80),
    }


def measure(part: str, function: Callable[[Path], Any]) -> dict[str, Any]:
    """The figures of one part, and when and where they were made."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ctde_kit_reliability_") as folder:
        figures = function(Path(folder))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchrl", "hydra-core"))
    made = f"{datetime.date.today().isoformat()}, {machine}, Python {platform.python_version()}, {versions}"
    minutes = (time.monotonic() - begun) / 60
    print(f"{part}: {json.dumps(figures)}", flush=True)
    return {"figures": figures, "made": made, "minutes": round(minutes, 1)}


def page(results: dict[str, Any]) -> str:
    """The page of the documentation: what is written by hand, and the figures that there are."""
    lines = [PAGE.read_text().partition(FIGURES)[0].rstrip(), "", FIGURES, ""]
    lines += ["| part | made by `python -m tests.reliability.measure` | minutes |", "|---|---|---|"]
    lines += [f"| {part} | {results[part]['made']} | {results[part]['minutes']} |" for part in PARTS if part in results]
    for part in PARTS:
        if part in results:
            lines += ["", *SECTIONS[part](results[part]["figures"])]
    return "\n".join([*lines, ""])


def _kills(figures: dict[str, Any]) -> list[str]:
    total = sum(one["kills"] for one in figures.values())
    right = total - sum(len(one["wrong"]) for one in figures.values())
    return [
        f"**{total} kills** (SIGKILL) at random moments and at random steps of writing files; {right} runs went on, by "
        "the same command, to the parameters, optimizers, replays, random states, rows and evaluations of the run that "
        "was never stopped, bit for bit.",
        "",
        "| run | kills | went on to the same end |",
        "|---|---|---|",
        *(f"| {case} | {one['kills']} | {one['kills'] - len(one['wrong'])} |" for case, one in figures.items()),
    ]


def _steps(figures: dict[str, Any]) -> list[str]:
    steps = figures["steps"]
    return [
        f"**A kill at each of {len(steps)} steps of writing a checkpoint and the rows before it** "
        f"({', '.join(sorted(set(steps)))}): {len(steps) - len(figures['wrong'])} went on to the same end."
    ]


def _flips(figures: dict[str, Any]) -> list[str]:
    return [
        "**Flipped bits**, one at a time: refused in one line that names the file. What is not refused in "
        "`metrics.csv` is read as the same number, or belongs to no row.",
        "",
        "| file | bits | refused |",
        "|---|---|---|",
        *(f"| {name} | {total} | {refused} |" for name, (refused, total) in figures.items()),
    ]


def _full_disk(figures: dict[str, Any]) -> list[str]:
    return [
        f"**Full disks**: {_right(figures)} of {len(figures)} points ({', '.join(figures)}) are one line with exit "
        "code 2, and the same command goes on to the same end once there is room."
    ]


def _two_processes(figures: dict[str, Any]) -> list[str]:
    return [
        f"**Two processes on one directory**: in {_right(figures)} of {len(figures)} ways ({', '.join(figures)}) one "
        "runs as if it were alone, and the other is told who does."
    ]


def _payloads(figures: dict[str, Any]) -> list[str]:
    return [
        "**Files that would run code**, sealed as if a run had written them. Some ways do not read a file at all.",
        "",
        f"| payload | {' | '.join(payloads.WAYS)} |",
        f"|---|{'---|' * len(payloads.WAYS)}",
        *(f"| {kind} | {' | '.join(ways[way] for way in payloads.WAYS)} |" for kind, ways in figures.items()),
    ]


def _endurance(figures: dict[str, Any]) -> list[str]:
    right = sum(not one["wrong"] for one in figures.values())
    (iterations,) = {one["iterations"] for one in figures.values()}
    allowed = endurance.ALLOWED["memory"] // 1024
    return [
        f"**{iterations:,} iterations** of short rollouts, updates, checkpoints and evaluations, then SIGTERM to all "
        f"processes: in {right} of {len(figures)} runs memory grew by no more than {allowed} MB from the half to the "
        "end, in the run's process and in its workers, the number of file descriptors, threads and processes by "
        "nothing, and nothing was left in the temporary folder. Medians of looks after the half, and before the end:",
        "",
        "| run | minutes | memory, MB | memory of workers, MB | descriptors | threads | processes |",
        "|---|---|---|---|---|---|---|",
        *(_endured(case, one) for case, one in figures.items()),
    ]


def _endured(case: str, one: dict[str, Any]) -> str:
    def shown(name: str) -> str:
        values = (one["half"][name], one["end"][name])
        return " to ".join(f"{value / 1024:.1f}" if "memory" in name else str(value) for value in values)

    return f"| {case} | {one['seconds'] / 60:.1f} | {' | '.join(map(shown, endurance.ALLOWED))} |"


def _checksum(figures: dict[str, Any]) -> list[str]:
    return [
        f"**What the checksum costs**, in seconds per GB of a checkpoint: written {figures['written']}, with a "
        f"checksum {figures['written with a checksum']}; compared {figures['compared']} when it is read."
    ]


SECTIONS: dict[str, Callable[[Any], list[str]]] = {
    "kills": _kills,
    "steps": _steps,
    "flips": _flips,
    "full disk": _full_disk,
    "two processes": _two_processes,
    "payloads": _payloads,
    "endurance": _endurance,
    "checksum": _checksum,
}


def _right(figures: dict[str, list[str]]) -> int:
    return sum(not wrong for wrong in figures.values())


def main() -> None:
    """Measure some parts, or all; with ``--quick``, a little of some, which is printed and not written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ctde_kit_compiled_") as compiled:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", compiled)
        if options.quick:
            measure("quick", quick)
            return
        for part in options.parts or PARTS:
            measured = measure(part, PARTS[part])
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps({**results, part: measured}, indent=1) + "\n")
            PAGE.write_text(page({**results, part: measured}))


if __name__ == "__main__":
    main()
