"""``python -m tests.reliability.measure``: the session ``reliability``; its figures go to ``docs/reliability.md``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Children are forked: a pool of threads would not come along.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch

# What a command imports late, once for all children.
from ctde_kit.files import replacing, seal_holds
from tests.reliability import damage, disks, kills, payloads, two_processes
from tests.reliability.cases import CASES

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
# What stands above is written by hand.
FIGURES = "## Figures"
QUICK_CASES = ("MAPPO, MLP",)


def measure_kills(cwd: Path, cases: list[str], count: int) -> dict[str, Any]:
    """``count`` kills over ``cases``, half at random moments and half at steps of writing."""
    draw, found = random.Random(0), {}
    for index, case in enumerate(cases):
        folder = cwd / f"case_{index}"
        folder.mkdir()
        seconds, steps = kills.whole_run(folder, case)
        share = count // len(cases) + (index < count % len(cases))
        wrong = []
        for kill in range(share):
            run = f"killed_{kill}"
            if kill % 2:
                wrong += kills.kill_at_random(folder, case, seconds, draw, run)
            else:
                wrong += kills.kill_at_step(folder, case, draw.randrange(steps), run)
        found[case] = {"kills": share, "steps": steps, "wrong": wrong}
        print(case, found[case], flush=True)
    return found


def measure_steps(cwd: Path, every: int) -> dict[str, Any]:
    """A kill at every step of the writing of one checkpoint and of what precedes and follows it."""
    names = (cwd / "case_0" / "steps").read_text().splitlines()
    # Between the second checkpoint's rows and the third's: all that writing one takes.
    ends = [index for index, name in enumerate(names) if name == "after replace"]
    steps = [index for index in range(ends[-4], ends[-2]) if "write" not in names[index]]
    wrong = []
    for step in steps[::every]:
        wrong += kills.kill_at_step(cwd / "case_0", QUICK_CASES[0], step, f"step_{step}")
    return {"steps": [names[step] for step in steps[::every]], "wrong": wrong}


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


def measure(cwd: Path, *, count: int, flips: int, quick: bool) -> dict[str, Any]:
    """All figures."""
    cases = list(QUICK_CASES if quick else CASES)
    figures: dict[str, Any] = {"kills": measure_kills(cwd, cases, count)}
    whole = cwd / "case_0"
    if not quick:
        figures["steps"] = measure_steps(cwd, every=1)
        figures["checksum"] = measure_checksum()
    points = ("metrics",) if quick else disks.POINTS
    figures["full disk"] = {point: disks.full_disk_at(whole, point) for point in points}
    ways = ("start and start",) if quick else two_processes.WAYS
    figures["two processes"] = {way: two_processes.two_processes(whole, way) for way in ways}
    print(figures["full disk"], figures["two processes"], flush=True)
    if not quick:
        figures["flips"] = damage.flip_all(damage.damaged_run(cwd), flips)
        figures["payloads"] = payloads.attack_all(cwd)
    return figures


def page(figures: dict[str, Any], seconds: float) -> str:
    """The page of the documentation."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchrl", "hydra-core"))
    kill_rows = [
        f"| {case} | {one['kills']} | {one['kills'] - len(one['wrong'])} |" for case, one in figures["kills"].items()
    ]
    steps, checksum = figures["steps"], figures["checksum"]
    flip_rows = [f"| {name} | {total} | {refused} |" for name, (refused, total) in figures["flips"].items()]
    payload_rows = [
        f"| {kind} | {' | '.join(str(ways[way]) for way in payloads.WAYS)} |"
        for kind, ways in figures["payloads"].items()
    ]
    total = sum(one["kills"] for one in figures["kills"].values())
    right = total - sum(len(one["wrong"]) for one in figures["kills"].values())
    lines = [
        PAGE.read_text().partition(FIGURES)[0].rstrip(),
        "",
        FIGURES,
        "",
        f"`nox -s reliability`, {datetime.date.today().isoformat()}: {machine}, Python {platform.python_version()}, "
        f"{versions}; {seconds / 60:.0f} minutes.",
        "",
        f"**{total} kills** (SIGKILL) at random moments and at random steps of writing files; {right} runs went on, by "
        "the same command, to the parameters, optimizers, replays, random states, rows and evaluations of the run that "
        "was never stopped, bit for bit.",
        "",
        "| run | kills | went on to the same end |",
        "|---|---|---|",
        *kill_rows,
        "",
        f"**A kill before and after each of the {len(steps['steps'])} steps of writing checkpoints and rows** "
        f"({', '.join(sorted(set(steps['steps'])))}): {len(steps['steps']) - len(steps['wrong'])} went on to the same "
        "end.",
        "",
        "**Flipped bits**, one at a time: refused in one line that names the file. What is not refused in "
        "`metrics.csv` is read as the same number, or belongs to no row.",
        "",
        "| file | bits | refused |",
        "|---|---|---|",
        *flip_rows,
        "",
        f"**Full disks**: {_right(figures['full disk'])} of {len(figures['full disk'])} points "
        f"({', '.join(figures['full disk'])}) are one line with exit code 2, and the same command goes on to the same "
        "end once there is room.",
        "",
        f"**Two processes on one directory**: {_right(figures['two processes'])} of {len(figures['two processes'])} "
        f"ways ({', '.join(figures['two processes'])}): one runs as if it were alone, the other is told who does.",
        "",
        "**Files that would run code**, sealed as if a run had written them; none ever ran.",
        "",
        f"| payload | {' | '.join(payloads.WAYS)} |",
        f"|---|{'---|' * len(payloads.WAYS)}",
        *payload_rows,
        "",
        f"**What the checksum costs**, in seconds per GB of a checkpoint: written {checksum['written']}, with a "
        f"checksum {checksum['written with a checksum']}; compared {checksum['compared']} when it is read.",
        "",
    ]
    return "\n".join(lines)


def _right(figures: dict[str, list[str]]) -> int:
    return sum(not wrong for wrong in figures.values())


def main() -> None:
    """Measure; with ``--quick``, a small part of everything, printed and not written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ctde_kit_reliability_") as folder:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(folder) / "compiled"))
        figures = measure(Path(folder), count=options.kills, flips=options.flips, quick=options.quick)
    print(json.dumps(figures, indent=2))
    if not options.quick:
        PAGE.write_text(page(figures, time.monotonic() - begun))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"processor time of children: {used.ru_utime + used.ru_stime:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
