"""``ctde report``: what it reads, what it computes, and what stands on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctde_kit.files import replacing
from ctde_kit.recipes import RecipeConfig
from ctde_kit.recipes.configs.data import to_data
from ctde_kit.recipes.studies.report.sources import read_sources
from ctde_kit.training.reporting import interval_estimates, read_marl_eval
from tests.recipes.command_line import assert_one_line, call_here, composed

FRAMES = (100, 200, 300)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval_estimates, "RESAMPLES", 50)
    monkeypatch.setattr(interval_estimates, "CURVE_RESAMPLES", 20)


def fake_run(path: Path, recipe: str, returns: tuple[float, ...], *overrides: str, ended: bool = True) -> Path:
    """A run directory of a command line, see ``write_fake_run``."""
    return write_fake_run(path, composed(recipe, *overrides), returns, ended=ended)


def write_fake_run(path: Path, config: RecipeConfig, returns: tuple[float, ...], *, ended: bool = True) -> Path:
    """A run directory with two episodes per evaluation, one better and one worse by 0.5."""
    data = to_data(config)
    path.mkdir(parents=True)
    with replacing(path / "config.yaml", sealed=True) as file:
        file.write(yaml.safe_dump(data).encode())
    evaluated = list(zip(FRAMES, returns, strict=False))
    rows = [f"{frames},{frames / 10},{value}" for frames, value in evaluated]
    (path / "metrics.csv").write_text("\n".join(["frames,seconds,eval/return_mean", *rows]) + "\n")
    records = [
        {"frames": frames, "seed": 1, "episode": episode, "length": 5, "return_mean": value + 0.5 * sign}
        for frames, value in evaluated
        for episode, sign in enumerate((-1, 1))
    ]
    (path / "evaluations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    summary: dict[str, Any] = {"eval/return_mean": returns[-1], "frames_per_second": 50.0}
    if ended:
        (path / "summary.json").write_text(json.dumps({**summary, "absolute/return_mean": returns[-1] - 0.1}))
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes on two tasks, two seeds each; one run more has not ended."""
    folder = tmp_path_factory.mktemp("runs")
    for task, scale in (("matrix/climbing", 10), ("matrix/penalty", 2)):
        for recipe, last in (("vdn", 0.5), ("mappo", 1.0)):
            for seed in (0, 1):
                returns = (0.0, scale * (last - 0.1 * seed))
                fake_run(folder / task / recipe / f"seed_{seed}", recipe, returns, f"task={task}", f"seed={seed}")
    unfinished = folder / "matrix/climbing" / "vdn" / "seed_2"
    fake_run(unfinished, "vdn", (0.0, 0.0), "task=matrix/climbing", "seed=2", ended=False)
    return folder


@pytest.fixture
def runs(written: Path, tmp_path: Path) -> Path:
    """A copy of them, ``b``."""
    return Path(shutil.copytree(written, tmp_path / "b"))


def test_a_page_with_figures_and_every_seed(runs: Path, tmp_path: Path) -> None:
    result = call_here(tmp_path, "report", "b", "output=r")
    assert result.returncode == 0, result.stderr
    page, pictures = (tmp_path / "r" / "report.md").read_text(), list((tmp_path / "r").glob("*.png"))
    assert {path.stem for path in pictures} == {"aggregates", "sample_efficiency", "profiles", "improvement", "tasks"}
    # Climbing: 0 to 10; the two seeds of vdn end at 5 and 4, those of mappo at 10 and 9; penalty alike.
    assert "| mappo | 0.950 | 0.950 | 0.950 | 0.050 |" in page
    assert "| vdn | 0.450 |" in page
    assert "| mappo | 9.500 |" in page
    assert "0: 5.000, 1: 4.000" in page
    assert "| 200 | 0.3 | 50 |" in page
    assert "Normalized from 0.000 to 10.000, the lowest and the highest mean return at hand." in page
    assert "seed_2" in page.partition("have not ended")[2]
    assert "ctde report b output=r" in page
    html = (tmp_path / "r" / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 5
    assert "<td>0: 5.000, 1: 4.000</td>" in html
    assert html.count("src=") == 5
    again = read_marl_eval(tmp_path / "r" / "marl_eval.json")
    assert {(run.task, run.label, run.seed) for run in again} == {
        (task, label, seed)
        for task in ("matrix/climbing", "matrix/penalty")
        for label in ("vdn", "mappo")
        for seed in (0, 1)
    }
    assert next(run for run in again if run.label == "vdn").episodes[0] == (-0.5, 0.5)


def test_a_report_beside_its_runs_is_no_source_of_the_next(runs: Path, tmp_path: Path) -> None:
    for _ in range(2):
        result = call_here(tmp_path, "report", "b", "output=b/report")
        assert result.returncode == 0, result.stderr
    assert len(read_sources([runs]).curves) == 8


def test_benchmarls_runs_stand_beside_ours(runs: Path, tmp_path: Path) -> None:
    steps = {f"step_{i}": {"step_count": frames, "return": [3.0, 5.0]} for i, frames in enumerate(FRAMES[:2])}
    steps["absolute_metrics"] = {"return": [9.0]}
    theirs = {"matrix": {"climbing": {"mappo": {"seed_0": steps}}, "Penalty": {"iql": {"seed_7": steps}}}}
    (tmp_path / "benchmarl").mkdir()
    (tmp_path / "benchmarl" / "mappo_climbing.json").write_text(json.dumps(theirs))
    found = read_sources([runs, tmp_path / "benchmarl"])
    beside = {(run.task, run.label): run.final for run in found.curves[8:]}
    assert beside == {("matrix/climbing", "mappo (benchmarl)"): 4.0, ("matrix/penalty", "iql"): 4.0}
    result = call_here(tmp_path, "report", "b", "benchmarl", "output=r", "bounds.matrix/climbing=[0,11]")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "r" / "report.md").read_text()
    assert "for want of runs on every task: iql, mappo (benchmarl)." in page
    assert "Normalized from 0.000 to 11.000." in page


def test_only_what_compares_is_compared(runs: Path, tmp_path: Path) -> None:
    def refused(*arguments: str, message: str) -> None:
        assert_one_line(call_here(tmp_path, "report", *arguments, "output=r"), message, program="ctde report")

    refused("nowhere", message="nowhere: there is no such directory or file; give one that holds runs")
    refused(message="expected directories of runs")
    refused("b", "seed=3", message="seed: there is no such option")
    refused("b", "bounds.matrix/climbing=[3,1]", message="expected bounds.TASK=[LOW,HIGH]")
    refused("b", "bounds.matrix/x=[0,1]", message="bounds.matrix/x: no run is of this task")
    (tmp_path / "empty").mkdir()
    refused("empty", message="empty: it holds no run")
    path = runs / "matrix/climbing/vdn/seed_3"
    fake_run(path, "vdn", (0.0, 1.0), "task=matrix/climbing", "seed=3", "lr=0.5")
    refused("b", message="vdn on matrix/climbing: seed 3 has lr=0.5")
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    fake_run(
        runs / "matrix/climbing/iql/seed_3", "iql", (0.0, 1.0), "task=matrix/climbing", "task.payoff=[[1,0],[0,1]]"
    )
    refused("b", message="matrix/climbing: mappo has task.payoff=")


def seeds_of(folder: Path, recipe: str, *finals: float, task: str = "matrix/climbing", first: int = 0) -> None:
    """Runs of one recipe on one task, a run for each final return."""
    for seed, final in enumerate(finals, first):
        fake_run(folder / task / recipe / f"seed_{seed}", recipe, (0.0, final), f"task={task}", f"seed={seed}")


def written_page(folder: Path, *arguments: str) -> tuple[str, str]:
    """The page of ``ctde report b``, and what the command printed."""
    result = call_here(folder, "report", "b", "output=r", *arguments)
    assert result.returncode == 0, result.stderr
    return (folder / "r" / "report.md").read_text(), result.stdout


def test_all_seeds_count_where_labels_have_different_numbers(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 4.0)
    seeds_of(tmp_path / "b", "mappo", 0.0, 10.0, 10.0, 10.0)
    page, printed = written_page(tmp_path)
    # The middle half of mappo's four seeds is 10 and 10; its first seed alone is 0.
    assert "| mappo | 1.000 (" in page.partition("## By task")[0]
    line = "Recipes have different numbers of seeds per task here, and all of these count: mappo 4, vdn 1."
    assert line in page.partition("## By task")[0]
    assert line in printed


def test_runs_that_do_not_count_over_all_tasks_are_named(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 4.0, 5.0, 6.0)
    seeds_of(tmp_path / "b", "vdn", 2.0, task="matrix/penalty")
    page, printed = written_page(tmp_path)
    line = "on the task where it has fewest: vdn on matrix/climbing, seed 1; vdn on matrix/climbing, seed 2."
    assert line in page.partition("## By task")[0]
    assert line in printed
    assert "first 1 seeds" not in page


def test_members_of_a_population_are_not_taken_for_independent_seeds(tmp_path: Path) -> None:
    population = tmp_path / "b" / "p"
    for rank in range(3):
        fake_run(population / "members" / str(rank), "vdn", (0.0, rank), "task=matrix/climbing", f"seed={rank}")
    assert "population" not in written_page(tmp_path)[0]
    (population / "exchanges.jsonl").write_text("{}\n")
    page, printed = written_page(tmp_path)
    assert "the 3 runs are members of one population, which exchanged critics, and no independent seeds" in page
    assert "members of one population" in printed


def test_final_returns_at_different_frames_are_marked(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 4.0, 5.0, 6.0)
    assert "different frames" not in written_page(tmp_path)[0]
    fake_run(tmp_path / "b/matrix/climbing/mappo/seed_0", "mappo", (0.0, 1.0, 2.0), "task=matrix/climbing", "seed=0")
    page, printed = written_page(tmp_path)
    assert "| 200 (not all of 300) |" in page
    assert "| 300 |" in page
    line = "runs end at different frames, and so final returns are those of different amounts of training: "
    assert f"{line}mappo 300, vdn 200." in page
    assert line in printed


def test_a_task_without_differences_does_not_count(tmp_path: Path) -> None:
    for seed in range(3):
        path = tmp_path / "b/matrix/penalty/vdn" / f"seed_{seed}"
        fake_run(path, "vdn", (2.0, 2.0), "task=matrix/penalty", f"seed={seed}")
    page, printed = written_page(tmp_path)
    assert "`matrix/penalty` does not count here, because all of its evaluations have the same return, 2.000" in page
    assert "matrix/penalty does not count here" in printed
    assert "Normalized" not in page
    assert "1.000 (1.000" not in page
    seeds_of(tmp_path / "b", "vdn", 4.0, 4.0, 8.0)
    assert "| vdn | 0.667 (" in written_page(tmp_path)[0]
    # Three runs at 2 of 10, and those at 4, 4 and 8 of 8: the middle four are 0.2, 0.5, 0.5 and 0.2.
    assert "| vdn | 0.350 (" in written_page(tmp_path, "bounds.matrix/penalty=[0,10]")[0]


def test_the_gap_is_to_the_best_run_at_hand_unless_bounds_are_given(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 4.0, 5.0, 6.0)
    page = written_page(tmp_path)[0]
    assert "| gap to the best run at hand |" in page
    assert "optimality" not in page
    page = written_page(tmp_path, "bounds.matrix/climbing=[0,11]")[0]
    assert "| optimality gap |" in page
    assert "at hand" not in page


def plan(folder: Path, **bounds: list[float]) -> None:
    content = {"recipes": {"vdn": "vdn", "mappo": "mappo"}, "tasks": {"matrix/climbing": ""}, "seeds": [0, 1, 2, 3]}
    (folder / "benchmark.yaml").write_text(yaml.safe_dump({**content, "options": [], "bounds": bounds}))


def test_a_benchmarks_bounds_count_unless_others_are_given(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 4.0, 5.0, 6.0)
    plan(tmp_path / "b", **{"matrix/climbing": [0, 11]})
    assert "Normalized from 0.000 to 11.000." in written_page(tmp_path)[0]
    assert "Normalized from 1.000 to 7.000." in written_page(tmp_path, "bounds.matrix/climbing=[1,7]")[0]
    seeds_of(tmp_path / "c", "iql", 4.0)
    plan(tmp_path / "c", **{"matrix/climbing": [0, 12]})
    message = (
        "bounds: matrix/climbing has [0.0, 12.0], another benchmark [0.0, 11.0]; choose with bounds.matrix/climbing="
    )
    assert_one_line(call_here(tmp_path, "report", "b", "c", "output=r"), message, program="ctde report")


def test_runs_of_a_benchmark_that_never_started_are_named(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 4.0, 5.0)
    fake_run(tmp_path / "b/matrix/climbing/vdn/seed_2", "vdn", (0.0,), "task=matrix/climbing", "seed=2", ended=False)
    plan(tmp_path / "b")
    page, printed = written_page(tmp_path)
    line = "lists have ended; 1 have started but not ended; 5 have not started: matrix/climbing/mappo/seed_0, "
    assert "2 of the 8 runs that" in page
    assert line in page
    assert line in printed
    assert "and 1 more." in page


def test_few_seeds_are_said_to_be_few(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 4.0, 5.0)
    page, printed = written_page(tmp_path)
    assert "No interval is given below 3 seeds" in page
    assert "No interval is given below 3 seeds" in printed
    assert "With fewer than 4 seeds the interquartile mean is the plain mean." in page
    seeds_of(tmp_path / "b", "vdn", 6.0, 7.0, first=2)
    page = written_page(tmp_path)[0]
    assert "No interval" not in page
    assert "fewer than 4" not in page


def test_tables_have_the_order_of_the_figures(tmp_path: Path) -> None:
    seeds_of(tmp_path / "b", "vdn", 6.0)
    seeds_of(tmp_path / "b", "mappo", 4.0)
    tables = written_page(tmp_path)[0].split("## By task")
    assert all(0 < table.index("| mappo |") < table.index("| vdn |") for table in tables)


def test_two_runs_of_one_seed_are_named_with_what_differs(tmp_path: Path) -> None:
    fake_run(tmp_path / "s" / "a", "vdn", (0.0, 1.0), "task=matrix/climbing", "lr=0.01")
    fake_run(tmp_path / "s" / "b", "vdn", (0.0, 1.0), "task=matrix/climbing", "lr=0.001")
    result = call_here(tmp_path, "report", "s", "output=r")
    differing = "s/a and s/b differ in lr (0.01 and 0.001); put variants into directories of their own"
    assert_one_line(result, f"vdn on matrix/climbing, seed 0: {differing}", program="ctde report")
    shutil.rmtree(tmp_path / "s" / "b")
    shutil.copytree(tmp_path / "s" / "a", tmp_path / "s" / "b")
    result = call_here(tmp_path, "report", "s", "output=r")
    assert_one_line(result, "seed 0: it is there twice, s/a and s/b; leave one out", program="ctde report")
