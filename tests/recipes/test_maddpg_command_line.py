"""The MADDPG command lines as users call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from ctde_kit.recipes import PolyakTarget
from tests.recipes.command_line import assert_one_line, call_here, composed, kill_and_resume

SMALL = [
    "task.n_envs=6",
    "task.max_steps=7",
    "task.params.n_agents=2",
    "frames_per_batch=60",
    "evaluation.episodes=4",
    "evaluation.every_frames=1200",
    "checkpoint.every_frames=60",
    "updates_per_frame=0.05",
    "replay.capacity=400",
    "replay.batch_size=16",
    "device=cpu",
]


@pytest.mark.slow
def test_run_killed_and_resumed_equals_the_run_that_never_stopped(tmp_path: Path) -> None:
    recurrent = [
        "network@actor=gru",
        "network@critic.network=gru",
        "actor.hidden_size=6",
        "critic.network.hidden_size=5",
    ]
    recurrent += ["replay=sequences", "replay.form.length=4", "replay.form.burn_in=2", "exploration=ornstein_uhlenbeck"]
    arguments = [*SMALL, *recurrent, "total_frames=1200"]
    kill_and_resume(tmp_path, "maddpg", *arguments, after="frames_4*.pt")
    states = [
        torch.load(tmp_path / run / "checkpoints" / "frames_1200.pt", weights_only=True)["parts"]
        for run in ("whole", "killed")
    ]
    for part in ("update", "buffer", "update_schedule", "policy"):
        leaves = [torch.utils._pytree.tree_leaves(state[part]) for state in states]
        assert len(leaves[0]) == len(leaves[1])
        for ours, theirs in zip(*leaves, strict=True):
            assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, part


@pytest.mark.parametrize("recipe", ["maddpg", "iddpg", "facmac"])
def test_each_recipe_runs_and_says_which_it_is(recipe: str, tmp_path: Path) -> None:
    result = call_here(tmp_path, recipe, *SMALL, "actor.num_cells=[8]", "total_frames=120", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["algorithm"] == recipe
    resumed = call_here(tmp_path, recipe, "resume=run", "total_frames=180")
    assert resumed.returncode == 0, resumed.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["algorithm"], summary["frames"]) == (recipe, 180)


def test_the_preset_gives_the_reports_setting(tmp_path: Path) -> None:
    arguments = ["preset=distributed_maddpg", "task.n_envs=2", "task.n_workers=1", "frames_per_batch=100"]
    arguments += ["total_frames=100", "evaluation.episodes=2", "hydra.run.dir=run"]
    result = call_here(tmp_path, "maddpg", *arguments)
    assert result.returncode == 0, result.stderr
    cfg = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (cfg["lr"], cfg["critic_lr"], cfg["gamma"]) == (1e-3, 1e-4, 0.95)
    assert (cfg["target"]["tau"], cfg["target"]["every"]) == (0.01, 10)
    assert (cfg["replay"]["batch_size"], cfg["replay"]["capacity"]) == (256, 500_000)
    assert (cfg["exploration"]["start"], cfg["exploration"]["end"]) == (0.2, 0.2)
    assert cfg["actor"]["num_cells"] == cfg["critic"]["network"]["num_cells"] == [64, 64]
    assert cfg["task"]["max_steps"] == 50
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "eval/return_mean" not in summary
    assert "eval/adversary/return_sum" in summary


@pytest.mark.slow
def test_an_opponent_from_the_command_line(tmp_path: Path) -> None:
    options = ["task=vmas/simple_tag", *(option for option in SMALL if "n_agents" not in option), "total_frames=120"]
    first = call_here(tmp_path, "maddpg", *options, "opponents.adversary=greedy_chase", "hydra.run.dir=prey")
    assert first.returncode == 0, first.stderr
    second = call_here(tmp_path, "iddpg", *options, "opponents.agent=prey", "hydra.run.dir=hunters")
    assert second.returncode == 0, second.stderr
    resumed = call_here(tmp_path, "iddpg", "resume=hunters", "total_frames=180")
    assert resumed.returncode == 0, resumed.stderr
    saved = [
        torch.load(tmp_path / run / "checkpoints" / f"frames_{frames}.pt", weights_only=True)["parts"]["policy"]
        for run, frames in (("prey", 120), ("hunters", 180))
    ]
    frozen = {name: value for name, value in saved[0].items() if name.startswith("module.1.")}
    assert frozen
    for name, value in frozen.items():
        assert torch.equal(value, saved[1][name.replace("module.1.", "module.1.actor.")]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task.continuous_actions=false"], "exploration=gumbel"),
        (["exploration=gumbel"], "exploration=gaussian"),
        (["critic=state"], "use critic.sees=team"),
        (["replay=sequences", "replay.form.burn_in=2"], "replay.form.burn_in: these networks are feed-forward"),
        (["network@actor=gru"], "replay=transitions: recurrent networks learn sequences; use replay=sequences"),
        (["exploration=gausian"], "did you mean gaussian"),
        (["preset=none_such"], "there is no such preset"),
        (["minimax_epsilon=-1"], "minimax_epsilon=-1"),
        (["exploration.sigma=3"], "exploration.sigma=3: not with what is chosen here"),
        (["task=vmas/simple_tag", "mixer=vdn", "critic=decentralized"], "adversary, agent compete in vmas/simple_tag"),
        (["mixer=qplex", "task.continuous_actions=false", "exploration=gumbel"], "use mixer=qmix or mixer=vdn"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert_one_line(call_here(tmp_path, "maddpg", *arguments, "total_frames=6000"), message, program="ctde-maddpg")


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("facmac", ["preset=matd3"], "twin_critics=true: with a mixer the loss learns one value of the team"),
        ("facmac", ["preset=matd3"], "give twin_critics=false"),
        (
            "maddpg",
            ["preset=matd3", "task.continuous_actions=false", "exploration=gumbel"],
            "smoothing_deviation: the actions of group 'agents' are discrete, so no noise can be added to them; "
            "give smoothing_deviation=null",
        ),
        ("iddpg", ["other_actions=current"], "use critic=centralized with ctde-maddpg or ctde-masac"),
        ("iddpg", ["critic=centralized"], "it does not fit ctde-iddpg; choose decentralized, or run another recipe"),
        ("isac", ["critic.sees=team"], "found critic.sees=team; give it, or run another recipe"),
        ("isac", ["critic=attention"], "critic=attention: it does not fit ctde-isac; choose decentralized"),
        ("facmac", ["mixer=none"], "expected mixer=qmix (from Python mixer=QMixerConfig()), found mixer=none"),
        ("vdn", ["mixer=qplex"], "expected mixer=vdn (from Python mixer=VDNMixerConfig()), found QPLEXMixerConfig"),
        ("iql", ["mixer=vdn"], "expected mixer=none (from Python mixer=NoMixer())"),
    ],
)
def test_what_another_recipe_is_for_is_said_in_options(
    recipe: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    refused = call_here(tmp_path, recipe, *arguments, "total_frames=6000")
    assert_one_line(refused, message, program=f"ctde-{recipe}")


def test_the_preset_of_matd3_gives_its_parts() -> None:
    config = composed("maddpg", "preset=matd3")
    assert (config.twin_critics, config.smoothing_deviation, config.policy_every) == (True, 0.2, 2)
    assert config.target == PolyakTarget(every=2)
    assert composed("iddpg", "preset=matd3").critic.sees == "observation"
