"""A job's figure, and the sweepers and launchers of hydra that use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctde_kit.recipes import QMIXConfig, RandomOpponent
from ctde_kit.recipes.commands.arguments import check_arguments
from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.commands.sweep_names import swept_name
from ctde_kit.recipes.commands.train import final_return
from tests.recipes.command_line import assert_one_line, call, call_here
from tests.recipes.small import small_config
from tests.recipes.test_evaluate_command import tag

TINY = ("task=matrix/climbing", "total_frames=480", "frames_per_batch=240", "evaluation.episodes=16")


def test_a_jobs_figure_is_its_final_mean_return(tmp_path: Path) -> None:
    config = small_config(total_frames=60)
    summary = start(config, tmp_path / "run")
    assert final_return(config, tmp_path / "run") == summary["eval/return_mean"]


@pytest.mark.parametrize("opponents", [{}, {"agent": RandomOpponent()}])
def test_where_groups_compete_it_is_the_only_learning_groups(opponents: dict, tmp_path: Path) -> None:
    config = small_config(task=tag(), total_frames=60, opponents=opponents)
    summary = start(config, tmp_path / "run")
    expected = summary["eval/adversary/return_mean"] if opponents else None
    assert final_return(config, tmp_path / "run") == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "lr=interval(0.0001,0.003)", "gamma=choice(0.9,0.99)"],
        [
            "hydra/sweeper=optuna",
            "lr=tag(log,interval(0.0001,0.003))",
            "returns.n=range(1,4)",
            "learning_starts=int(interval(1,5))",
        ],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=120", "seed=0,1"],
    ],
)
def test_what_belongs_to_hydras_sweepers_is_taken(arguments: list[str]) -> None:
    check_arguments("ctde-vdn", Options.of(QMIXConfig, "vdn"), ["-m", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "hydra/sweeper=foo"], 'hydra/sweeper=foo: hydra has no such choice; pip install "ctde-kit[sweep]"'),
        (["-m", "seed=interval(0.5,2)"], "seed=0.5: expected a whole number"),
        (["lr=interval(0.1,0.2)"], "several values need -m"),
    ],
)
def test_mistakes_in_a_search_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert_one_line(call_here(tmp_path, "vdn", *arguments), message, program="ctde-vdn")


def test_each_directory_has_the_name_of_what_is_swept(tmp_path: Path) -> None:
    swept = ("seed=0,1", "lr=1e-2,1e-3")
    result = call_here(tmp_path, "vdn", "-m", *TINY, *swept, "hydra.sweep.dir=sweep")
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert names == ["0_seed_0_lr_0.01", "1_seed_0_lr_0.001", "2_seed_1_lr_0.01", "3_seed_1_lr_0.001"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["task=vmas/balance", "++task.params.n_agents=4"], "task_balance_n_agents_4"),
        (
            ["opponents.agent.directory='/a b/it, (1)'"],
            "agent_it-1",
        ),
        (
            ["actor.hidden_sizes=[64,64]", "critic.network.hidden_sizes=[]"],
            "actor.hidden_sizes_64-64_critic.network.hidden_sizes_null",
        ),
        (["gamma=0.9"], "seed_7"),
        ([f"task.params.name={'long' * 60}"], f"name_{('long' * 8)[:30]}"),
    ],
)
def test_names_are_valid_and_short(overrides: list[str], name: str) -> None:
    assert swept_name(overrides, ["gamma"], seed=7) == name


@pytest.mark.slow
def test_optuna_finds_the_best_options(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = (
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.n_trials=2",
        "lr=choice(0.01,0.001)",
    )
    result = call(tmp_path, "vdn", "-m", *search, "hydra.sweeper.n_jobs=1", *TINY, "hydra.sweep.dir=sweep")
    assert result.returncode == 0, result.stderr
    (found,) = [
        line
        for line in (tmp_path / "sweep" / "optimization_results.yaml").read_text().splitlines()
        if "best_value" in line
    ]
    figures = [json.loads(path.read_text())["eval/return_mean"] for path in (tmp_path / "sweep").glob("*/summary.json")]
    assert len(figures) == 2
    assert float(found.partition(":")[2]) == max(figures)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [("joblib", "hydra.launcher.n_jobs=2"), ("submitit_local", "hydra.launcher.timeout_min=30")]
)
def test_other_launchers_run_each_job(launcher: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher[0].partition('_')[0]}_launcher")
    chosen = (f"hydra/launcher={launcher[0]}", launcher[1], "hydra.sweep.dir=sweep")
    result = call(tmp_path, "vdn", "-m", *chosen, "seed=0,1", *TINY)
    assert result.returncode == 0, result.stderr
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/summary.json")]
    assert sorted(summary["seed"] for summary in summaries) == [0, 1]
