"""ctde cross-play: runs of several kinds and scripted policies against each other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import GreedyChaseOpponent, RandomOpponent, RunOpponent, VmasTask, load
from ctde_kit.recipes.commands.cross_play import play, write
from ctde_kit.recipes.configs.command_options import CrossPlayConfig
from ctde_kit.recipes.wiring.evaluating import EVALUATION_SEED
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import evaluate
from tests.recipes.command_line import call_here
from tests.recipes.small import small_config
from tests.recipes.test_opponents import config, q_config, run, tag


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Feed-forward and recurrent runs, one with a frozen group."""
    folder = tmp_path_factory.mktemp("runs")
    mlp = run(folder / "mlp", config("mlp", total_frames=60))
    gru = run(folder / "gru", config("gru", total_frames=60, opponents={"agent": RunOpponent(str(mlp))}))
    return {"folder": folder, "mlp": mlp, "gru": gru}


def test_table_of_runs_and_scripted_policies(runs: dict[str, Path], tmp_path: Path) -> None:
    cfg = CrossPlayConfig(
        policies={
            "agent": {"x": RunOpponent(str(runs["gru"])), "y": RandomOpponent()},
            "adversary": {
                "a": RunOpponent(str(runs["gru"])),
                "b": RunOpponent(str(runs["mlp"])),
                "c": GreedyChaseOpponent(),
            },
        },
        episodes=12,
        device="cpu",
    )
    table = play(cfg)
    assert table.labels == {"adversary": ["gru", "mlp", "greedy_chase"], "agent": ["gru", "random"]}
    assert table.returns["adversary"].shape == (3, 2, 12, 3)
    assert table.returns["agent"].shape == (3, 2, 12, 2)
    # A cell is what an evaluation of that run gives.
    loaded = load(runs["gru"])
    env = loaded.config.task.build(seed=0, device="cpu", n_envs=12)
    env = with_transforms(env, TeamSpec.from_env(env), loaded.policy)
    alone = evaluate(env, loaded.policy, ["adversary", "agent"], episodes=12, seed=EVALUATION_SEED)
    for group in ("adversary", "agent"):
        assert torch.equal(table.returns[group][0, 0], alone.by_group[group])
    paths = write(table, cfg, tmp_path / "out")
    assert [path.name for path in paths] == ["cross_play.csv", "cross_play.json", "cross_play.png"]
    content = json.loads(paths[1].read_text())
    assert content["policies"]["adversary"]["mlp"] == {"directory": str(runs["mlp"]), "sampled": False}
    assert content["params"] == {"num_good_agents": 2}
    assert len(content["pairings"]) == 6


def test_q_learners_play_too(runs: dict[str, Path]) -> None:
    path = run(runs["folder"] / "iql", q_config(total_frames=60))
    policies = {"adversary": {"a": RunOpponent(str(path))}, "agent": {"b": RunOpponent(str(path), sampled=True)}}
    assert play(CrossPlayConfig(policies=policies, episodes=6, device="cpu")).labels == {
        "adversary": ["iql"],
        "agent": ["iql (sampled)"],
    }


def test_policies_that_share_a_label_are_both_played() -> None:
    policies = {
        "adversary": {"a": RandomOpponent(), "b": RandomOpponent(), "c": GreedyChaseOpponent(), "d": RandomOpponent()},
        "agent": {"a": RandomOpponent()},
    }
    table = play(CrossPlayConfig(policies=policies, task=tag(), episodes=6, device="cpu"))
    assert table.labels["adversary"] == ["random", "random (2)", "greedy_chase", "random (3)"]
    assert table.returns["adversary"].shape == (4, 1, 6, 3)


@pytest.mark.parametrize(
    ("policies", "task", "message"),
    [
        ({"adversary": {"a": RandomOpponent()}, "agent": {"a": RandomOpponent()}}, None, "the task is not known"),
        ({"adversary": {"a": RandomOpponent()}}, tag(), "agent: no policy is given"),
        ({"agnet": {"a": RandomOpponent()}}, tag(), r"agnet: neither a group of vmas/simple_tag \(adversary, agent\)"),
        ({}, VmasTask(name="vmas/balance", n_envs=6, max_steps=7), "is between two groups, vmas/balance has agents"),
        ({"adversary": {"a": RunOpponent("nowhere")}}, None, "nowhere: there is no such directory"),
    ],
)
def test_mistakes_are_named(policies: dict, task: VmasTask | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        play(CrossPlayConfig(policies=policies, task=task, episodes=6, device="cpu"))


def test_runs_of_different_tasks_do_not_meet_silently(runs: dict[str, Path]) -> None:
    other = run(runs["folder"] / "longer", config(total_frames=60, task=tag(params={"shape_agent_rew": True})))
    sides = {"adversary": {"a": RunOpponent(str(runs["mlp"]))}, "agent": {"a": RunOpponent(str(other))}}
    with pytest.raises(UserError, match=r"has task\.params=.* give the task to be played"):
        play(CrossPlayConfig(policies=sides, episodes=6, device="cpu"))
    assert play(CrossPlayConfig(policies=sides, task=tag(), episodes=6, device="cpu")).labels["agent"] == ["longer"]
    navigation = run(runs["folder"] / "navigation", small_config(total_frames=60))
    sides["agent"] = {"a": RunOpponent(str(navigation))}
    with pytest.raises(UserError, match="is a run of vmas/navigation, this is vmas/simple_tag"):
        play(CrossPlayConfig(policies=sides, task=tag(), episodes=6, device="cpu"))


def test_command_line(runs: dict[str, Path]) -> None:
    arguments = ["adversary=[mlp,gru,greedy_chase]", "agent=random", "episodes=12", "device=cpu"]
    result = call_here(runs["folder"], "cross-play", *arguments, "hydra.run.dir=table")
    assert result.returncode == 0, result.stderr
    assert "adversary greedy_chase, agent random: return_sum adversary " in result.stdout
    with open(runs["folder"] / "table" / "cross_play.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["adversary"], row["agent"]) for row in rows] == [
        ("mlp", "random"),
        ("gru", "random"),
        ("greedy_chase", "random"),
    ]
    assert (runs["folder"] / "table" / "cross_play.png").stat().st_size > 5_000
    again = call_here(runs["folder"], "cross-play", *arguments, "hydra.run.dir=table")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "holds a table already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adversary=[mlp]", "agent=[randm]"], "agent=randm: there is no such directory"),
        (["episods=3", "adversary=mlp"], "options other than groups are task, episodes, seed, device"),
        (["adversary=mlp", "agent=mlp", "episodes=0"], "episodes=0: expected a number above 0"),
        (["adversary=mlp", "agent=mlp", "task=vmas/navigatoin"], "did you mean vmas/navigation"),
        (["adversary=mlp"], "agent: no policy is given"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str, runs: dict[str, Path]) -> None:
    result = call_here(runs["folder"], "cross-play", *arguments, "hydra.run.dir=never")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr
    assert result.stderr.startswith("ctde cross-play: error: ")
