"""``ctde compare``: how runs are grouped, what stands on the page, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ctde_kit.recipes import EvaluationConfig, MatrixTask, NoMixer, QMIXConfig, VDNMixerConfig, named_task
from ctde_kit.recipes.commands.compare import read_options
from ctde_kit.recipes.studies.report.settings import read_by_settings
from ctde_kit.training.reporting import interval_estimates
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.small import network, small_config
from tests.recipes.test_report import write_fake_run


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval_estimates, "RESAMPLES", 50)
    monkeypatch.setattr(interval_estimates, "CURVE_RESAMPLES", 20)


def vdn(**options: Any) -> QMIXConfig:
    return QMIXConfig(**{"algorithm": "vdn", "mixer": VDNMixerConfig(), "task": MatrixTask(), **options})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VDN with two learning rates, three seeds each, and IQL with one; one run of VDN more has not ended."""
    folder = tmp_path_factory.mktemp("compared")
    for lr, last in ((0.001, 8.0), (0.01, 5.0)):
        for seed in (0, 1, 2):
            write_fake_run(folder / "sweep" / f"lr={lr},seed={seed}", vdn(seed=seed, lr=lr), (0.0, last - seed))
    iql = vdn(algorithm="iql", mixer=NoMixer(), seed=7, evaluation=EvaluationConfig(episodes=3))
    write_fake_run(folder / "iql", iql, (0.0, 6.5))
    write_fake_run(folder / "sweep" / "more", vdn(seed=3), (0.0, 1.0), ended=False)
    write_fake_run(folder / "other", vdn(task=named_task("matrix/penalty")), (0.0, 1.0))
    write_fake_run(folder / "payoff", vdn(task=MatrixTask(payoff=[[1, 0], [0, 1]])), (0.0, 1.0))
    (folder / "empty").mkdir()
    return folder


def test_runs_that_differ_in_their_seed_alone_are_one_curve(runs: Path) -> None:
    found = read_by_settings([runs / "iql", runs / "sweep"], read_options)
    grouped: dict[str, list[int]] = {}
    for curve in found.curves:
        grouped.setdefault(curve.label, []).append(curve.seed)
    assert grouped == {"iql": [7], "vdn lr=0.001": [0, 1, 2], "vdn lr=0.01": [0, 1, 2]}
    assert [path.name for path in found.unfinished] == ["more"]


def test_a_part_that_differs_is_named_without_the_options_that_come_with_it(runs: Path, tmp_path: Path) -> None:
    configs = {
        "a": small_config(),
        "b": small_config(actor=network("gru"), device="cpu"),
        "c": small_config(seed=1, callbacks=["mine:stop"], task=replace(small_config().task, n_envs=3)),
    }
    for name, config in configs.items():
        write_fake_run(tmp_path / name, config, (0.0, 1.0))
    labels = [curve.label for curve in read_by_settings([tmp_path], read_options).curves]
    assert labels == [
        "mappo task.n_envs=6 actor=mlp callbacks=[]",
        "mappo task.n_envs=6 actor=gru callbacks=[]",
        "mappo task.n_envs=3 actor=mlp callbacks=[mine:stop]",
    ]
    # Runs of one kind of part are told apart by its options, too.
    wider = replace(configs["a"].actor, num_cells=[9])
    write_fake_run(tmp_path / "d", replace(configs["a"], actor=wider), (0.0, 1.0))
    labels = [curve.label for curve in read_by_settings([tmp_path / "a", tmp_path / "d"], read_options).curves]
    assert labels == ["mappo actor.num_cells=[8]", "mappo actor.num_cells=[9]"]
    assert len({curve.label for curve in read_by_settings([tmp_path], read_options).curves}) == 4


def test_a_page_with_curves_a_table_and_the_probability_of_improvement(runs: Path, tmp_path: Path) -> None:
    result = call_here(runs, "compare", "sweep", "iql", f"output={tmp_path / 'c'}")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "c" / "compare.md").read_text()
    assert "| vdn lr=0.001 | 7.000 (" in page
    assert "0: 8.000, 1: 7.000, 2: 6.000" in page
    # Of the nine pairs of seeds (8, 7, 6) and (5, 4, 3) the first is better in all; of (8, 7, 6) and 6.5 in two.
    assert "| vdn lr=0.001 | vdn lr=0.01 | 1.000 (" in page
    assert "| vdn lr=0.001 | iql | 0.667 |" in page
    assert "iql | vdn lr=0.01 | 1.000" in page
    assert "more`" in page.partition("have not ended")[2]
    assert "ctde compare sweep iql" in page
    assert (tmp_path / "c" / "compare.html").read_text().count("data:image/png;base64,") == 2
    assert "vdn lr=0.001" in result.stdout
    assert f"{tmp_path / 'c' / 'compare.html'}" in result.stdout
    for name in ("curves.png", "improvement.png"):
        assert np.asarray(Image.open(tmp_path / "c" / name)).std() > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "output=c"], "nowhere: there is no such directory"),
        (["empty", "output=c"], "empty: it holds no run"),
        (["iql", "output=c"], "expected two runs that have ended, or more, found 1; give several RUN_DIRs"),
        (["iql", "sweep/more", "output=c"], "found 1, and 1 that have not ended"),
        (["iql", "iql", "output=c"], "found 1;"),
        (["iql", "other", "output=c"], "a run with task.name=matrix/penalty"),
        (["iql", "payoff", "output=c"], "a run with task.payoff=[[1, 0], [0, 1]]"),
        (["iql", "sweep"], "expected directories of runs and where the page goes"),
        (["output=c"], "expected directories of runs and where the page goes"),
        (["iql", "sweep", "seed=3", "output=c"], "seed=3: there is no such option"),
        (["iql", "sweep", "--all", "output=c"], "--all: there is no such option"),
        (["iql", "sweep", "output=iql/config.yaml"], "output=iql/config.yaml cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(arguments: list[str], message: str, runs: Path) -> None:
    assert_one_line(call_here(runs, "compare", *arguments), message, program="ctde compare")
    assert not (runs / "c").exists()


def test_two_runs_of_one_seed_are_refused(runs: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_fake_run(tmp_path / name, vdn(), (0.0, 1.0))
    result = call_here(tmp_path, "compare", "a", "b", "output=c")
    there = f"it is there twice, {tmp_path / 'a'} and {tmp_path / 'b'}; leave one out"
    assert_one_line(result, f"vdn on matrix/climbing, seed 0: {there}", program="ctde compare")


def test_members_of_a_population_are_said_to_have_exchanged_critics(tmp_path: Path) -> None:
    for rank in range(2):
        write_fake_run(tmp_path / "p" / "members" / str(rank), vdn(seed=rank), (0.0, 1.0 + rank))
    assert "population" not in call_here(tmp_path, "compare", "p", "output=c").stdout
    (tmp_path / "p" / "exchanges.jsonl").write_text("{}\n")
    printed = call_here(tmp_path, "compare", "p", "output=c").stdout
    assert "the 2 runs are members of one population, which exchanged critics, and no independent seeds" in printed
    assert printed.count("members of one population") == 1
