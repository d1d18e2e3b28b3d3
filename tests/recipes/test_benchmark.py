"""``ctde benchmark``: which runs there are, a queue that stops and goes on, and what becomes of failures."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from ctde_kit.cores import usable_cores
from ctde_kit.envs.games import MatrixGameEnv
from ctde_kit.errors import UserError
from ctde_kit.recipes import MatrixTask, named_task
from ctde_kit.recipes.commands.application import options_of
from ctde_kit.recipes.commands.benchmark import _write_plan, planned, read_options, run_all
from ctde_kit.recipes.configs.benchmark_options import BenchmarkOptions
from ctde_kit.recipes.studies.benchmark.job_queue import JobQueue
from ctde_kit.recipes.studies.benchmark.plan import Plan, PlannedRun, Status
from ctde_kit.recipes.studies.benchmark.progress_table import progress_table
from tests.recipes.command_line import ENVIRONMENT, assert_one_line, call_here, command

VDN = ["recipes=vdn", "tasks=matrix/climbing", "output=b"]
# A stand-in for a recipe, which needs no torch: it takes a second, notes its threads, and fails where it is told to.
RECIPE = """
import json, os, pathlib, signal, sys, time
options = dict(part.split("=", 1) for part in sys.argv[2:])
run = pathlib.Path(options.get("hydra.run.dir") or options["resume"])
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
def stop(*_):
    (run / "checkpoints" / "frames_1.pt").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(run / f"began_{time.time()}").touch()
if "fail" in options:
    sys.exit("a cause in one line")
if "last" in options:
    time.sleep(float(options["last"]))
summary = {"eval/return_mean": 1.5, "threads": os.environ["OMP_NUM_THREADS"], "resumed": "resume" in options}
(run / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def script(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return (sys.executable, str(path))


def plan(output: Path, *options: str, seeds: tuple[int, ...] = (0, 1)) -> list[PlannedRun]:
    recipes = {"vdn": ["vdn"], "slow": ["vdn", "lr=1e-4"]}
    return list(Plan(recipes, {"matrix/climbing": []}, list(seeds), list(options), output).runs())


def test_runs_of_a_file_and_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "recipes: {vdn: null, slow: qmix lr=1e-4, fast: vdn lr=1e-2}\n"
        "tasks: {matrix/climbing: task.n_envs=2}\nseeds: [3]\noptions: [total_frames=960]\n"
    )
    options = read_options([f"benchmark={path}", f"output={tmp_path / 'b'}", "seeds=5,6", "gamma=0.5"])
    assert options is not None
    runs = list(planned(options).runs())
    assert [(run.label, run.recipe, run.seed) for run in runs] == [
        (label, recipe, seed)
        for seed in (5, 6)
        for label, recipe in [("vdn", "vdn"), ("slow", "qmix"), ("fast", "vdn")]
    ]
    directory = tmp_path / "b" / "matrix" / "climbing" / "slow" / "seed_5"
    assert runs[1].arguments == [
        *["qmix", "task=matrix/climbing", "seed=5", f"hydra.run.dir={directory}"],
        *["total_frames=960", "gamma=0.5", "task.n_envs=2", "lr=1e-4"],
    ]
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / "frames_60.pt").touch()
    assert runs[1].arguments == ["qmix", f"resume={directory}"]
    assert [run.status for run in runs[:2]] == [Status.NEW, Status.STOPPED]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("mpe", "vmas_small") else [])
        for name in options_of("benchmark")
    ],
)
def test_every_benchmark_of_the_kit_is_one(name: str, tmp_path: Path) -> None:
    options = read_options([f"benchmark={name}", f"output={tmp_path}"])
    assert options is not None
    runs = list(planned(options).runs())
    assert len(runs) == len(options.recipes) * len(options.tasks) * len(options.seeds) >= 27
    # Seeds for tuning are below 100.
    assert min(options.seeds) >= 100
    with_workers = [run for run in runs if any(option.startswith("task.n_workers=") for option in run.options)]
    assert len(with_workers) == (len(runs) if name in ("lbf", "mpe") else 0)


def test_the_matrix_games_bounds_end_with_their_best_return() -> None:
    options = read_options(["benchmark=matrix", "output=b"])
    assert options is not None
    for name, bounds in options.bounds.items():
        task = named_task(name)
        assert isinstance(task, MatrixTask)
        game = MatrixGameEnv(1, task.payoff, task.next_state)
        # By stage, from the last one: the best return of a joint action and what follows it; after the end there is 0.
        best = torch.zeros(game.n_states + 1)
        for stage in reversed(range(game.n_states)):
            best[stage] = (game.payoff[stage] + best[game.next_state[stage]]).max()
        assert bounds == (0.0, best[0])
    assert options.bounds.keys() == options.tasks.keys()


def test_bounds_of_a_file_stay_with_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobQueue, "work", lambda *_: True)
    arguments = ["benchmark=matrix", "tasks=matrix/penalty,matrix/climbing", f"output={tmp_path / 'b'}"]
    options = read_options(arguments)
    assert options is not None
    (tmp_path / "b").mkdir()
    run_all(planned(options), options)
    saved = yaml.safe_load((tmp_path / "b" / "benchmark.yaml").read_text())
    assert saved["bounds"] == {"matrix/penalty": [0.0, 10.0], "matrix/climbing": [0.0, 11.0]}
    # What is saved is a benchmark's file again.
    again = read_options([f"benchmark={tmp_path / 'b' / 'benchmark.yaml'}", "output=c"])
    assert again is not None
    assert again.bounds == {"matrix/penalty": (0.0, 10.0), "matrix/climbing": (0.0, 11.0)}


@pytest.mark.parametrize("name", ["vmas/tag.py:Scenario", "vmas/tag"])
def test_bounds_of_an_own_task_have_the_name_of_its_runs(name: str, tmp_path: Path) -> None:
    plan = Plan({"mappo": ["mappo"]}, {"vmas/tag.py:Scenario": []}, [0], [], tmp_path)
    _write_plan(plan, {name: (0.0, 1.0)})
    assert yaml.safe_load((tmp_path / "benchmark.yaml").read_text())["bounds"] == {"vmas/tag": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ("{matrix/climb: [0, 11]}", "bounds: matrix/climb: expected a task of the file; did you mean matrix/climbing"),
        ("{matrix/climbing: [11, 0]}", "expected in a file, for tasks their lowest and highest return"),
        ("{matrix/climbing: 11}", "expected in a file, for tasks their lowest and highest return"),
    ],
)
def test_mistakes_in_bounds(bounds: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"recipes: [vdn]\ntasks: [matrix/climbing]\nseeds: [3]\nbounds: {bounds}\n")
    with pytest.raises(UserError, match=re.escape(message)):
        read_options([f"benchmark={path}", "output=b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes=vdm", "tasks=matrix/climbing", "output=b"], "there is no recipe 'vdm'; did you mean vdn"),
        (["recipes=vdn", "tasks=matrix/climb", "output=b"], "no task 'matrix/climb'; did you mean matrix/climbing"),
        (["recipes=vdn", "tasks=matrix/climbing"], "output: nothing is given"),
        ([*VDN, "seed=3"], "seed=3: a benchmark gives each run its own; use seeds"),
        ([*VDN, "seeds=1,x"], "seeds=1,x: expected whole numbers"),
        ([*VDN, "jobs=1000"], "jobs=1000: expected at most one per core"),
        ([*VDN, "minutes=0"], "minutes=0: expected a number above 0"),
        ([*VDN, "gama=3"], "gama=3: there is no such option; did you mean gamma?"),
        ([*VDN, "value_loss=l2", "huber_delta=3.0"], "huber_delta=3.0: nothing reads it here"),
        ([*VDN, "lr=0.1,0.2"], "lr=0.1,0.2: each run has one value (a list stands in brackets, [64,64])"),
        ([*VDN, "critic=centralized"], "critic=centralized: ctde-vdn has no critic"),
        (["benchmark=matrx", "output=b"], "there is no such benchmark, nor such a file; did you mean matrix"),
        (["output"], "output: expected NAME=VALUE"),
        ([*VDN, "bounds=[0,11]"], "bounds=[0,11]: expected in a file, for tasks their lowest and highest return"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert_one_line(call_here(tmp_path, "benchmark", *arguments), message, program="ctde benchmark")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_with_other_options_is_left_alone(tmp_path: Path) -> None:
    options = [
        *VDN,
        "seeds=3",
        "total_frames=32",
        "frames_per_batch=32",
        "task.n_envs=2",
        "evaluation.episodes=2",
        "compile=off",
        "jobs=1",
    ]
    result = call_here(tmp_path, "benchmark", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "matrix/climbing  vdn     1 of 1" in result.stdout
    log = (tmp_path / "b" / "logs" / "matrix__climbing__vdn__seed_3.log").read_text()
    assert "after 32 frames" in log
    again = call_here(tmp_path, "benchmark", *options)
    assert (tmp_path / "b" / "logs" / "matrix__climbing__vdn__seed_3.log").read_text() == log
    assert again.returncode == 0
    refused = call_here(tmp_path, "benchmark", *options, "gamma=0.5")
    assert_one_line(refused, "holds a run with gamma=0.9, this benchmark has 0.5", program="ctde benchmark")


def test_the_queue_keeps_to_its_jobs_and_threads(tmp_path: Path, script: tuple[str, ...]) -> None:
    seen: list[int] = []
    queue = JobQueue(2, 3, command=script, watch=lambda running: seen.append(len(running)))
    runs = plan(tmp_path / "b", "last=0.5", seeds=(0, 1, 2))
    assert queue.work(runs)
    assert max(seen) == 2
    assert {run.status for run in runs} == {Status.ENDED}
    assert all('"threads": "3"' in (run.directory / "summary.json").read_text() for run in runs)


def test_time_is_up_and_the_next_call_goes_on(tmp_path: Path, script: tuple[str, ...]) -> None:
    runs = plan(tmp_path / "b", "last=60", seeds=(0,))
    queue = JobQueue(1, 1, command=script)
    began = time.monotonic()
    assert not queue.work(runs, deadline=began + 1.5)
    assert time.monotonic() - began < 30
    assert [run.status for run in runs] == [Status.STOPPED, Status.NEW]
    # Resumed, the stand-in has no `last`, as a run's options are in its directory.
    assert queue.work(runs[:1])
    assert '"resumed": true' in (runs[0].directory / "summary.json").read_text()
    assert progress_table(runs)[1:] == [
        "matrix/climbing  vdn     1 of 1  -    -       1.500",
        "matrix/climbing  slow    0 of 1  -    -       -",
    ]


def test_a_failure_is_named_and_passed_over(tmp_path: Path, script: tuple[str, ...]) -> None:
    bad = PlannedRun("bad", "vdn", "t", 0, ("fail=1",), tmp_path / "b")
    good = PlannedRun("good", "vdn", "t", 0, (), tmp_path / "b")
    queue = JobQueue(1, 1, command=script)
    assert queue.work([bad, good])
    assert queue.failed == [bad]
    assert [run.status for run in (bad, good)] == [Status.FAILED, Status.ENDED]
    assert bad.failure.read_text().splitlines() == ["exit code 1", "a cause in one line"]
    assert "seed 0" in progress_table([bad])[1]


@pytest.mark.slow
def test_an_interrupted_benchmark_ends_its_runs_and_goes_on(tmp_path: Path) -> None:
    options = [*VDN, "seeds=0", "total_frames=14400", "compile=off"]
    options += ["checkpoint.every_frames=480", "evaluation.every_frames=14400", "updates_per_frame=0.01", "jobs=1"]
    options += ["evaluation.episodes=2"]
    process = subprocess.Popen(
        command("benchmark", *options),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As a shell does with a program that it starts in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    run = tmp_path / "b" / "matrix" / "climbing" / "vdn" / "seed_0"
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/frames_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert b"stopped; the same command goes on" in stderr
    assert not (run / "summary.json").exists()
    assert not (run / ".owner").exists()  # its process has ended
    log = tmp_path / "b" / "logs" / "matrix__climbing__vdn__seed_0.log"
    assert log.read_text().count("$ ctde") == 1
    again = call_here(tmp_path, "benchmark", *options)
    assert f"$ ctde vdn resume={run}" in log.read_text()
    assert again.stdout.count("1 of 1") == 2
    assert (run / "metrics.csv").read_text().count("\n") == 31


def test_all_runs_together_have_one_core_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = usable_cores()
    for jobs in range(1, cores + 1):
        assert BenchmarkOptions(jobs=jobs).threads == cores // jobs
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert BenchmarkOptions(jobs=1).threads == 1
    with pytest.raises(UserError, match="expected each once"):
        BenchmarkOptions({"vdn": ["vdn"]}, {"t": []}, [1, 1], output=Path("b")).check()


def test_own_code_is_trusted_again_and_two_tasks_never_share_a_directory(tmp_path: Path) -> None:
    tasks: dict[str, list[str]] = {"vmas/a/tag.py:Scenario": [], "matrix/climbing": []}
    own, plain = Plan({"vdn": ["vdn"]}, tasks, [0], [], tmp_path).runs()
    for run in (own, plain):
        checkpoint = run.directory / "checkpoints" / "frames_60.pt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
    assert own.arguments == ["vdn", f"resume={own.directory}", "trust=true"]
    assert plain.arguments == ["vdn", f"resume={plain.directory}"]
    with pytest.raises(UserError, match=r"vmas/a/tag.py:Scenario and vmas/b/tag.py:Scenario would share the directory"):
        Plan({"vdn": ["vdn"]}, {**tasks, "vmas/b/tag.py:Scenario": []}, [0], [], tmp_path)
