"""What a run keeps of its evaluations: every episode, the best policy, and what it was done with."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError
from ctde_kit.modules import RandomActor
from ctde_kit.recipes import CheckpointConfig, EvaluationConfig, GRUNetwork, VmasTask, evaluation_env, load
from ctde_kit.recipes.commands import running
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.specs import TeamSpec
from ctde_kit.training import (
    BestPolicy,
    EvaluationLog,
    Returns,
    best_policies,
    evaluate,
    evaluation,
    read_evaluations,
    read_metrics,
    record_episode,
    reported_metrics,
)
from tests.recipes.small import small_config

pytestmark = pytest.mark.usefixtures("no_curves")


class CountingEnv(EnvBase):
    """Env k ends after k + 1 steps; agent a earns a + 1 per step, and reports success in its last step."""

    def __init__(self, num_envs: int):
        super().__init__(batch_size=torch.Size([num_envs]))
        agents = torch.Size([num_envs, 2])
        self.ends = torch.arange(num_envs).unsqueeze(-1) + 1
        self.elapsed = torch.zeros_like(self.ends)
        numbers = Unbounded(torch.Size([*agents, 1]))
        infos = Composite(
            {"success": Unbounded(agents, dtype=torch.bool), "place": Unbounded((*agents, 3))}, shape=agents
        )
        team = Composite({"observation": numbers, "info": infos}, shape=agents)
        self.observation_spec = Composite({"agents": team}, shape=self.batch_size)
        self.action_spec = Composite(
            {"agents": Composite({"action": numbers.clone()}, shape=agents)}, shape=self.batch_size
        )
        self.reward_spec = Composite(
            {"agents": Composite({"reward": numbers.clone()}, shape=agents)}, shape=self.batch_size
        )
        flag = Categorical(2, shape=torch.Size([num_envs, 1]), dtype=torch.bool)
        self.done_spec = Composite({"done": flag, "terminated": flag.clone()}, shape=self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        """It draws nothing."""

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        self.elapsed = torch.zeros_like(self.elapsed) if mask is None else self.elapsed.masked_fill(mask, 0)
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.elapsed = self.elapsed + 1
        reward = torch.tensor([1.0, 2.0]).expand(*self.batch_size, 2).unsqueeze(-1)
        return self._output().set(("agents", "reward"), reward.clone())

    def _output(self) -> TensorDictBase:
        agents = (*self.batch_size, 2)
        done = self.elapsed >= self.ends
        infos = TensorDict({"success": done.expand(agents), "place": torch.zeros(*agents, 3)}, agents)
        team = TensorDict({"observation": torch.zeros(*agents, 1), "info": infos}, agents)
        return TensorDict({"agents": team, "done": done, "terminated": done.clone()}, self.batch_size)


def lines(run: Path) -> list[dict[str, Any]]:
    return list(read_evaluations(run / "evaluations.jsonl"))


def test_lengths_numbers_and_infos_of_episodes_by_hand() -> None:
    policy = TensorDictModule(nn.Identity(), in_keys=[("agents", "observation")], out_keys=[("agents", "action")])
    returns = evaluate(CountingEnv(3), policy, ["agents"], episodes=6, seed=0)
    found = [(row["episode"], row["length"], row["agents/return_sum"]) for row in returns.records()]
    assert found == [(0, 1, 3.0), (1, 2, 6.0), (2, 3, 9.0), (3, 1, 3.0), (4, 2, 6.0), (5, 3, 9.0)]
    assert [row["return_mean"] for row in returns.records()] == [1.5, 3.0, 4.5, 1.5, 3.0, 4.5]
    assert {name: values.mean().item() for name, values in returns.infos["agents"].items()} == {
        "success_sum": 1.0,
        "success_last": 1.0,
    }


def test_what_envs_report_is_a_metric_and_its_name_is_known_before_any_episode() -> None:
    won = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    metrics = Returns({"agents": won}, infos={"agents": {"won_last": won, "won_sum": 2 * won}}).metrics(True)
    assert {name: value for name, value in metrics.items() if "info" in name} == {
        "agents/info/won_last": 3 / 8,
        "agents/info/won_sum": 3 / 4,
    }
    assert reported_metrics(CountingEnv(3), ["agents"]) == ["agents/info/success_sum", "agents/info/success_last"]
    assert reported_metrics(VmasEnv("navigation", num_envs=2), ["agents"]) == []


def test_what_an_env_reports_can_choose_the_best_policy(tmp_path: Path) -> None:
    name = "eval/agents/info/pos_rew_sum"
    every = EvaluationConfig(every_frames=60, episodes=4, absolute=True)
    config = small_config(total_frames=180, evaluation=every, checkpoint=CheckpointConfig(metric=name))
    summary = start(config, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if name in row]
    values = [row[name] for row in rows]
    by_hand = [
        sum(line["agents/info/pos_rew_sum"] for line in lines(tmp_path / "run") if line["frames"] == row["frames"]) / 4
        for row in rows
    ]
    assert values == pytest.approx(by_hand, abs=1e-6)
    assert summary[name] == values[-1]
    content = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=False)
    assert (content["metric"], content["value"]) == (name, max(values))
    assert content["frames"] == summary["absolute/frames"] == rows[values.index(max(values))]["frames"]


class NotesItsMode(nn.Module):
    """Does nothing, and notes whether it is in training."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return observation


def test_a_policy_is_evaluated_in_evaluation_mode_and_then_goes_on_as_before() -> None:
    noting, frozen = NotesItsMode(), nn.Dropout().eval()
    network: Any = nn.Sequential(noting, frozen)
    policy: Any = TensorDictModule(network, in_keys=[("agents", "observation")], out_keys=[("agents", "action")])
    evaluate(CountingEnv(3), policy, ["agents"], episodes=3, seed=0)
    record_episode(CountingEnv(1), policy, None, seed=0)
    assert noting.modes == [False] * 4
    assert (noting.training, frozen.training) == (True, False)


@pytest.mark.parametrize("length", [4, 8])
def test_episodes_that_do_not_end_are_said_to(
    length: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "LONG", 5)
    env = VmasEnv("navigation", num_envs=2, max_steps=length)
    returns = evaluate(env, RandomActor(TeamSpec.from_env(env)["agents"]), ["agents"], episodes=2, seed=0)
    assert returns.lengths is not None
    assert returns.lengths.tolist() == [length, length]
    assert ("no episode has ended in 5 steps: an env that never ends one needs max_steps" in caplog.text) == (
        length > 5
    )


def test_the_same_seed_records_the_same_episode_of_a_policy_that_samples() -> None:
    actions: list[torch.Tensor] = []
    for state in (1, 2):
        torch.manual_seed(state)
        env = VmasEnv("navigation", num_envs=1, max_steps=4)
        sampling = RandomActor(TeamSpec.from_env(env)["agents"])
        record_episode(env, sampling, None, seed=5, watch=lambda step: actions.append(step["agents", "action"]))
    first, second = torch.stack(actions).chunk(2)
    assert torch.equal(first, second)


@pytest.mark.parametrize("video", [False, True])
def test_envs_of_evaluations_and_recordings_are_closed_when_training_fails(
    video: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[EnvBase] = []
    for name in ("build_evaluation", "build_rendered"):
        build = getattr(VmasTask, name)
        monkeypatch.setattr(VmasTask, name, lambda self, build=build, **options: kept(made, build(self, **options)))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(running, "run", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        start(small_config(video=video), tmp_path / "run")
    assert len(made) > video
    assert all(env.is_closed for env in made)


def kept(envs: list[EnvBase], env: EnvBase) -> EnvBase:
    """The env, which is appended to ``envs``."""
    envs.append(env)
    return env


def test_every_episode_of_every_evaluation_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(small_config(), run)
    found = lines(run)
    assert [(row["frames"], row["episode"]) for row in found] == [(f, e) for f in (120, 240) for e in range(4)]
    assert {(row["seed"], row["length"]) for row in found} == {(1_000_000, 7)}
    last = [row["agents/return_mean"] for row in found if row["frames"] == 240]
    summary = json.loads((run / "summary.json").read_text())
    assert sum(last) / 4 == pytest.approx(summary["eval/agents/return_mean"])
    # Navigation's reward is what it reports: coming closer, arriving together, collisions.
    infos = [f"agents/info/{name}_sum" for name in ("pos_rew", "final_rew", "agent_collisions")]
    for row in found:
        assert sum(row[name] for name in infos) == pytest.approx(row["agents/return_mean"], abs=1e-5)
    (run / "evaluations.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match=r"evaluations\.jsonl, line 1: expected an episode's record"):
        lines(run)


def test_a_loop_of_ones_own_evaluates_as_the_command_does(tmp_path: Path) -> None:
    config = small_config(evaluation=EvaluationConfig(every_frames=240, episodes=4), actor=GRUNetwork(hidden_size=8))
    start(config, tmp_path / "run")
    run, seed = load(tmp_path / "run"), 1_000_000 + config.seed
    env = evaluation_env(run.config, run.parts, episodes=4, seed=seed)
    found = evaluate(env, run.policy, ["agents"], episodes=4, seed=seed).metrics()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["return_mean"] == summary["eval/return_mean"]


def test_a_resumed_run_keeps_the_evidence_of_one_that_never_stopped(tmp_path: Path) -> None:
    every = EvaluationConfig(every_frames=60, episodes=4, absolute=True)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    start(small_config(evaluation=every), whole)
    shutil.copytree(whole, stopped)
    (stopped / "summary.json").unlink()
    (stopped / "checkpoints" / "frames_240.pt").unlink()
    with open(stopped / "evaluations.jsonl", "a") as file:
        file.write('{"frames": 300, "ep')
    resume(read_config(stopped), stopped)
    assert lines(stopped) == lines(whole)
    bests = [torch.load(run / "checkpoints" / "best.pt", weights_only=True) for run in (whole, stopped)]
    assert bests[0]["frames"] == bests[1]["frames"]
    for name, value in bests[0]["parts"]["policy"].items():
        assert torch.equal(value, bests[1]["parts"]["policy"][name])
    summaries = [json.loads((run / "summary.json").read_text()) for run in (whole, stopped)]
    absolute = [{k: v for k, v in summary.items() if k.startswith("absolute/")} for summary in summaries]
    assert absolute[0] == absolute[1]
    assert absolute[0]["absolute/episodes"] == 40
    assert absolute[0]["absolute/frames"] == bests[0]["frames"]
    sessions = json.loads((stopped / "facts.json").read_text())["sessions"]
    assert [session["from_frames"] for session in sessions] == [0, 180]
    assert sessions[1]["to_frames"] == 240
    assert sessions[0]["versions"]["torch"] == torch.__version__
    assert sessions[0]["compile"] == {"asked": "auto", "rollouts": False, "updates": False}


def test_of_equal_policies_the_earlier_stays_and_one_of_another_history_goes(tmp_path: Path) -> None:
    policy, path = nn.Linear(1, 1), tmp_path / "best.pt"
    best = BestPolicy(path, "mappo", "eval/return_mean")
    weights = {}
    for frames, value in [(60, 1.0), (120, 3.0), (180, 3.0), (240, float("nan"))]:
        nn.init.constant_(policy.weight, frames)
        best.consider(policy, frames, {"return_mean": value})
        weights[frames] = policy.weight.clone()
    assert not path.exists()
    best.write()
    best.load(policy)
    assert torch.equal(policy.weight, weights[120])
    again = BestPolicy(path, "mappo", "eval/return_mean")
    again.go_on(120)
    assert (again.frames, again.value) == (120, 3.0)
    again.consider(policy, 180, {"return_mean": 2.0})
    again.write()
    nn.init.zeros_(policy.weight)
    again.load(policy)
    assert torch.equal(policy.weight, weights[120])
    BestPolicy(path, "mappo", "eval/return_mean").go_on(60)
    assert not path.exists()


def test_where_every_figure_is_nan_the_first_policy_is_kept_until_a_number_comes(tmp_path: Path) -> None:
    policy, best = nn.Linear(1, 1), BestPolicy(tmp_path / "best.pt", "mappo", "eval/return_mean")
    for frames, value in [(60, float("nan")), (120, float("nan"))]:
        best.consider(policy, frames, {"return_mean": value})
    best.write()
    assert (best.frames, best.path.exists()) == (60, True)
    best.consider(policy, 180, {"return_mean": -5.0})
    assert (best.frames, best.value) == (180, -5.0)


@pytest.mark.parametrize(("compete", "warnings"), [(False, 1), pytest.param(True, 0, marks=pytest.mark.slow)])
def test_opposed_groups_that_are_taken_for_one_team_are_said_once(
    compete: bool, warnings: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = VmasTask("vmas/simple_tag", n_envs=6, max_steps=30, groups_compete=compete)
    config = small_config(task=task, total_frames=120, evaluation=EvaluationConfig(every_frames=60, episodes=60))
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        start(config, tmp_path / "run")
    said = [record.getMessage() for record in caplog.records if "say groups_compete=True" in record.getMessage()]
    assert len(said) == warnings
    expected = "adversary earns what agent loses (correlation of their returns -1.00 over 60 episodes)"
    assert all(expected in one for one in said)


def test_each_group_has_a_best_policy_where_groups_compete(tmp_path: Path) -> None:
    task = VmasTask("vmas/simple_tag", n_envs=6, max_steps=7, groups_compete=True)
    every = EvaluationConfig(every_frames=60, episodes=4, absolute=True)
    summary = start(small_config(task=task, total_frames=120, evaluation=every), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"best_adversary.pt", "best_agent.pt", "frames_60.pt", "frames_120.pt"}
    assert {name for name in summary if name.startswith("absolute/")} == {
        f"absolute/{group}/{name}"
        for group in ("adversary", "agent")
        for name in ("frames", "return_mean", "return_sum")
    }
    assert "return_mean" not in lines(tmp_path / "run")[0]


def test_the_metric_of_the_best_policy_is_one_that_evaluations_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metric='eval/loss': expected one of eval/return_mean, eval/return_sum"):
        start(small_config(checkpoint=CheckpointConfig(metric="eval/loss")), tmp_path / "run")
    assert not list(tmp_path.glob("run/config.yaml"))
    with pytest.raises(UserError, match=r"metric='eval/agents/info/won_last': .*, eval/agents/info/pos_rew_sum, "):
        start(small_config(checkpoint=CheckpointConfig(metric="eval/agents/info/won_last")), tmp_path / "other")
    assert [best.path.name for best in best_policies(tmp_path, "mappo", "eval/b/return_sum", ["a", "b"], True)] == [
        "best.pt"
    ]
    with pytest.raises(UserError, match="expected one of eval/a/return_mean"):
        best_policies(tmp_path, "mappo", "eval/return_sum", ["a"], groups_compete=True)


def test_an_evaluation_at_the_same_frames_is_replaced(tmp_path: Path) -> None:
    log = EvaluationLog(tmp_path / "evaluations.jsonl")
    records = Returns({"agents": torch.ones(1, 2)}).records()
    for frames in (60, 120, 120):
        log.write(frames, seed=1, records=records)
    assert [row["frames"] for row in read_evaluations(log.path)] == [60, 120]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("agents", r"groups='agents': expected a list of names, such as \['agents'\]"),
        (["agent"], r"groups=\['agent'\]: this env has no group 'agent'; expected some of \['agents'\]"),
    ],
)
def test_groups_that_are_not_there_are_named(groups: Any, message: str) -> None:
    env = VmasEnv("navigation", num_envs=2, max_steps=5)
    policy = RandomActor(TeamSpec.from_env(env)["agents"])
    with pytest.raises(UserError, match=message):
        evaluate(env, policy, groups, episodes=2, seed=0)
