"""Two processes on one run directory: one goes on as if it were alone, the other is told who has it."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.cases import CASES, differences, fork_command, run_command, wait_for

CASE = "MAPPO, MLP"
WAYS = ("start and start", "resume and resume", "start and resume")


def two_processes(cwd: Path, way: str) -> list[str]:
    """What is not as it should be; the run ``whole`` is in ``cwd``."""
    recipe, arguments = CASES[CASE]
    run = way.replace(" ", "_")
    start, resume = [*arguments, f"hydra.run.dir={run}"], [f"resume={run}", "total_frames=300"]
    commands = {"start": start, "resume": resume}
    expected = cwd / "whole"
    if way == "resume and resume":
        # Learning rates go by the frames of the whole run, so that one that is made longer ends elsewhere.
        expected = cwd / "made_longer"
        short = [*(option for option in arguments if not option.startswith("total_frames")), "total_frames=120"]
        longer = [f"resume={expected.name}", *resume[1:]]
        before = ([*short, f"hydra.run.dir={run}"], [*short, f"hydra.run.dir={expected.name}"], longer)
        for failed in [ended for ended in (run_command(cwd, recipe, one) for one in before) if ended.code != 0]:
            return [f"a run before it failed: {failed.stderr}"]
    first, second = (commands[name] for name in way.split(" and "))
    processes = [fork_command(cwd, recipe, first)]
    if way == "start and resume":
        # The second comes while the first has a checkpoint and goes on.
        while not list((cwd / run / "checkpoints").glob("frames_*.pt")):
            pass
    processes.append(fork_command(cwd, recipe, second))
    ended = sorted((wait_for(process, cwd) for process in reversed(processes)), key=lambda one: one.code)
    wrong = [f"{one.code}: {one.stderr}" for one in ended]
    if [one.code for one in ended] != [0, 2] or "in use by process" not in ended[1].stderr:
        return wrong
    return differences(expected, cwd / run)
