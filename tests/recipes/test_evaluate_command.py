"""ctde evaluate: a run's final evaluation again, other tasks and policies, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.recipes import EvaluationConfig, LbfTask, MatrixTask, MLPNetwork, RandomOpponent, VmasTask, named_task
from ctde_kit.recipes.commands.running import start
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.small import NORMALIZED, network, shared_config, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_q import small_q_config


def foraging() -> LbfTask:
    """Many agents and foods on a small field: barely trained policies do at times, so that returns tell seeds apart."""
    return LbfTask(env_id="Foraging-5x5-4p-3f-v3", n_envs=4, n_workers=1, max_steps=25)


def tag(**params: Any) -> VmasTask:
    return VmasTask("vmas/simple_tag", n_envs=6, max_steps=30, groups_compete=True, params=params)


MANY = EvaluationConfig(every_frames=5_000, episodes=40)
CONFIGS = {
    "mappo": lambda: small_config("mlp"),
    "mappo_gru": lambda: small_config("gru", **NORMALIZED),
    "ippo_one_network": lambda: shared_config("gru", **NORMALIZED),
    "qmix_masks": lambda: small_q_config(
        "gru", "sequences", task=foraging(), evaluation=MANY, total_frames=600, frames_per_batch=300
    ),
    "maddpg": small_maddpg_config,
    "maddpg_ensemble": lambda: small_maddpg_config(ensemble_size=2),
    "lbf": lambda: small_config("mlp", task=foraging(), evaluation=MANY, total_frames=600, frames_per_batch=300),
    "tag": lambda: small_config("mlp", task=tag(), opponents={"agent": RandomOpponent()}, evaluation=MANY),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, config in CONFIGS.items():
        start(config(), folder / name)
    return folder


def evaluated(folder: Path, run: str, *arguments: str, output: str) -> dict[str, Any]:
    result = call_here(folder, "evaluate", run, *arguments, f"output={output}")
    assert result.returncode == 0, result.stderr
    (content,) = json.loads((folder / output).read_text())["evaluations"]
    return content


@pytest.mark.parametrize("name", list(CONFIGS))
def test_without_options_it_is_the_runs_final_evaluation(name: str, runs: Path) -> None:
    summary = json.loads((runs / name / "summary.json").read_text())
    content = evaluated(runs, name, output=f"{name}.json")
    expected = {key: value for key, value in summary.items() if key.startswith("eval/")}
    assert {key: value for key, value in content.items() if key.startswith("eval/")} == expected
    assert len(content["per_episode"]) == expected["eval/episodes"]
    other = evaluated(runs, name, "seed=5", output=f"{name}_5.json")
    assert [other[key] != expected[key] for key in expected if key.endswith("return_mean")].count(True) > 0


def test_the_file_has_every_episode_and_its_figures_are_theirs(runs: Path) -> None:
    content = evaluated(runs, "mappo", "episodes=9", "seed=3", output="nine.json")
    assert (content["seed"], content["eval/episodes"], content["task"]["params"]["n_agents"]) == (1_000_003, 9, 2)
    returns = torch.tensor([episode["agents/returns"] for episode in content["per_episode"]]).double()
    means = returns.mean(1)
    figure = content["figures"]["agents/return_mean"]
    assert figure["mean"] == pytest.approx(means.mean().item())
    assert figure["standard_error"] == pytest.approx((means.std() / 3).item())
    assert figure["iqm"] == pytest.approx(means.sort().values[2:7].mean().item())
    assert figure["quantiles"]["0.5"] == pytest.approx(means.median().item())
    assert figure["quantiles"]["1"] == means.max().item()
    for episode in content["per_episode"]:
        # Navigation's reward is this sum of parts.
        parts = sum(episode[f"agents/info/{name}_sum"] for name in ("pos_rew", "agent_collisions", "final_rew"))
        assert parts == pytest.approx(sum(episode["agents/returns"]) / 2, abs=1e-5)
        assert episode["length"] <= 7
        assert episode["terminated"] == (episode["length"] < 7)


def test_a_shared_policy_acts_for_any_number_of_agents(runs: Path) -> None:
    content = evaluated(runs, "mappo", "task.params.n_agents=5", "episodes=4", output="five.json")
    assert content["agents"] == {"agents": 5}
    assert len(content["per_episode"][0]["agents/returns"]) == 5


def test_it_moves_to_another_task_of_the_same_sizes(runs: Path, tmp_path: Path) -> None:
    start(small_config("mlp", task=VmasTask("vmas/dispersion", n_envs=6, max_steps=7)), tmp_path / "run")
    content = evaluated(tmp_path, "run", "task=vmas/dispersion", "task.max_steps=5", "episodes=4", output="own.json")
    assert content["task"]["params"] == named_task("vmas/dispersion").params
    assert {episode["length"] for episode in content["per_episode"]} == {5}
    # Observations of balance have as many features, whatever they mean; those of navigation have more.
    assert evaluated(tmp_path, "run", "task=vmas/balance", "episodes=4", output="o.json")["agents"] == {"agents": 4}
    result = call_here(tmp_path, "evaluate", "run", "task=vmas/navigation", "episodes=4")
    message = "vmas/navigation observes 18 features per agent, this policy reads 16; choose a task whose agents"
    assert_one_line(result, message, program="ctde evaluate")


def test_a_task_without_arguments_says_what_it_has(tmp_path: Path) -> None:
    start(small_q_config(task=MatrixTask(n_envs=2), total_frames=20, frames_per_batch=10), tmp_path / "run")
    result = call_here(tmp_path, "evaluate", "run", "task.params.n_agents=5")
    message = "task.params.n_agents=5: matrix/climbing has no task.params; its options are task.n_envs, task.payoff"
    assert_one_line(result, message, program="ctde evaluate")


def test_policies_in_place_of_the_trained_one(runs: Path, tmp_path: Path) -> None:
    seen = {
        policy: evaluated(runs, "mappo", f"policy={policy}", "episodes=6", output=f"{tmp_path}/{policy}.json")
        for policy in ("greedy", "sampled", "random", "zero")
    }
    assert len({content["eval/return_mean"] for content in seen.values()}) == 4
    start(small_config("mlp", task=VmasTask("vmas/balance", n_envs=6, max_steps=40)), tmp_path / "balance")
    returns = {
        policy: evaluated(tmp_path, "balance", f"policy={policy}", "episodes=50", output=f"balance_{policy}.json")
        for policy in ("heuristic", "zero")
    }
    assert returns["heuristic"]["eval/return_mean"] > returns["zero"]["eval/return_mean"] + 1


def test_a_policy_that_was_not_trained_has_no_frames(runs: Path, tmp_path: Path) -> None:
    for policy, head in (("random", "random policy, 2 episodes of"), ("greedy", "greedy policy at 240 frames, 2 epis")):
        shown = call_here(runs, "evaluate", "mappo", f"policy={policy}", "episodes=2", f"output={tmp_path}/{policy}")
        assert head in shown.stdout


def test_another_checkpoint_is_another_policy(runs: Path) -> None:
    contents = [evaluated(runs, "mappo", f"checkpoint={c}", output=f"c{c}.json") for c in ("180", "240", "last")]
    assert [content["frames"] for content in contents] == [180, 240, 240]
    best = evaluated(runs, "mappo", "checkpoint=best", output="best.json")
    assert best["checkpoint"] == "best.pt"
    logged = [json.loads(line) for line in (runs / "mappo" / "evaluations.jsonl").read_text().splitlines()]
    means = {row["frames"]: 0.0 for row in logged}
    for row in logged:
        means[row["frames"]] += row["return_mean"] / 4
    assert best["frames"] == max(means, key=lambda frames: means[frames])
    assert best["eval/return_mean"] == pytest.approx(max(means.values()), abs=1e-6)
    first, second, last = (content["eval/return_mean"] for content in contents)
    assert first != second == last


def test_opponents_change_sides(runs: Path) -> None:
    plain = evaluated(runs, "tag", output="plain.json")
    chased = evaluated(runs, "tag", "opponents.adversary=greedy_chase", output="chased.json")
    assert "eval/return_mean" not in plain
    assert plain["eval/adversary/return_sum"] != chased["eval/adversary/return_sum"]
    assert chased["opponents"] == {"adversary": {"kind": "greedy_chase", "n_landmarks": 2}}


def test_several_runs_and_files_of_their_own(runs: Path) -> None:
    before = {path: path.read_bytes() for path in (runs / "mappo").rglob("*") if path.is_file()}
    for number in (1, 2):
        result = call_here(runs, "evaluate", "mappo", "mappo_gru", "episodes=4")
        assert result.returncode == 0, result.stderr
        assert [(runs / run / f"evaluation_{number}.json").exists() for run in ("mappo", "mappo_gru")] == [True, True]
    assert before == {path: path.read_bytes() for path in before}


def test_paths_may_hold_any_sign(runs: Path, tmp_path: Path) -> None:
    place = tmp_path / "a=b (1), '${x}"
    start(small_config("mlp", total_frames=60), place / "r=1")
    assert evaluated(place, "r=1", "episodes=4", output="o=(1).json")["frames"] == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the directory of a run"),
        (["nowhere"], "nowhere: there is no such directory; give the directory that a run printed"),
        (["mappo", "checkpoint=7"], "checkpoint=7: mappo has last, 180, 240, best; choose one of them"),
        (["mappo", "policy=best"], "policy=best: expected one of greedy, sampled, random, zero, heuristic"),
        (["mappo", "episodes=0"], "episodes=0: expected a number above 0"),
        (["mappo", "seed=-1"], "seed=-1: expected 0 to"),
        (["mappo", "task.params.n_agent=4"], "task.params.n_agent is never read by navigation: did you mean n_agents"),
        (["mappo", "task.n_steps=4"], "task.n_steps=4: expected one value for one of task.name"),
        (["mappo", "task.max_steps=many"], "task.max_steps=many: Value 'many'"),
        (["mappo", "task=vmas/navigatoin"], "'vmas/navigatoin': there is no such task"),
        (["mappo", "task=vmas/simple_tag"], "mappo has no policy for group 'adversary' of vmas/simple_tag"),
        (["mappo", "episods=4"], "episods=4: there is no such option; did you mean episodes?"),
        (["mappo", "opponents.agnet=random"], "opponents.agnet: no such group; vmas/navigation has agents"),
        (["lbf", "policy=heuristic"], "heuristic: scripted policies come with VMAS's scenarios"),
        (["tag", "policy=heuristic"], "VMAS ships no scripted policy for simple_tag; it does for balance, discovery"),
        (["mappo", "output=mappo/config.yaml"], "output=mappo/config.yaml: there is such a file already"),
        (["mappo", "output=/proc/nothing/x.json"], "cannot be written"),
        (["mappo", "--episodes=3"], "there is no such flag"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, runs: Path) -> None:
    assert_one_line(call_here(runs, "evaluate", *arguments), message, program="ctde evaluate")


def test_sizes_that_do_not_fit_are_named(runs: Path, tmp_path: Path) -> None:
    start(small_config("mlp", actor=MLPNetwork(num_cells=[8], share_params=False), total_frames=60), tmp_path / "own")
    result = call_here(tmp_path, "evaluate", "own", "task.params.n_agents=3")
    assert_one_line(result, "is [2, 8] there, expected [3, 8]", program="ctde evaluate")
    start(small_config("mlp", actor=network("mlp", agent_id=True), total_frames=60), tmp_path / "id")
    result = call_here(tmp_path, "evaluate", "id", "task.params.n_agents=3")
    assert_one_line(result, "does not fit group 'agents'", program="ctde evaluate")
