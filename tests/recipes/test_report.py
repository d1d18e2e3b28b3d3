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

FRAMES = (100, 200)


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
    evaluated = list(zip(FRAMES, returns, strict=True))
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
    assert "| mappo | 0.950 (" in page
    assert "| vdn | 0.450 (" in page
    assert "| mappo | 9.500 (" in page
    assert "0: 5.000, 1: 4.000" in page
    assert "| 200 | 0.3 | 50 |" in page
    assert "Normalized from 0.000 to 10.000." in page
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
    steps = {f"step_{i}": {"step_count": frames, "return": [3.0, 5.0]} for i, frames in enumerate(FRAMES)}
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
        assert_one_line(call_here(tmp_path, "report", *arguments, "output=r"), message, program="ctde-report")

    refused("nowhere", message="nowhere: there is no such directory or file")
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
