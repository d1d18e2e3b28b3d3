"""MADDPG's recipes with groups that are frozen, scripted or go on from an earlier run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    GreedyChaseOpponent,
    GumbelExploration,
    OrnsteinUhlenbeckExploration,
    QMixerConfig,
    RandomOpponent,
    RunOpponent,
    ValueCriticConfig,
    VDNMixerConfig,
    load,
)
from ctde_kit.recipes.commands.cross_play import play
from ctde_kit.recipes.configs.command_options import CrossPlayConfig
from ctde_kit.recipes.wiring.evaluating import EVALUATION_SEED
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import evaluate, load_parts, read_checkpoint, save_checkpoint
from tests.recipes.resuming import advance
from tests.recipes.small import network
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.test_opponents import config as ppo_config
from tests.recipes.test_opponents import group_weights, q_config, run, same, tag

OU = OrnsteinUhlenbeckExploration(frames=200)


def config(kind: str = "mlp", **options: Any) -> Any:
    form = "transitions" if kind == "mlp" else "sequences"
    return small_maddpg_config(kind, form, **{"task": tag(), "exploration": OU, **options})


@pytest.fixture(scope="module", params=["mlp", pytest.param("gru", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both groups."""
    return run(tmp_path_factory.mktemp("runs") / "both", config(kind, total_frames=120, seed=5))


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [False, True])
def test_a_frozen_group_stays_bit_identical_and_resume_too(
    trained: Path, kind: str, sampled: bool, tmp_path: Path
) -> None:
    """The opponent is recurrent where the learner is feed-forward, and explores with its own process where sampled."""
    learner = "mlp" if kind == "gru" else "gru"
    cfg = config(learner, opponents={"agent": RunOpponent(str(trained), sampled)})
    parts = cfg.build()
    before = {name: group_weights(parts, name) for name in ("adversary", "agent")}
    assert same(before["agent"], group_weights(load(trained).parts, "agent"))
    loss = parts.update.losses["team"]
    assert list(loss.critics) == ["adversary"]
    learned = {id(p) for options in parts.update.optimizer.param_groups for p in options["params"]}
    assert learned == {id(p) for p in loss.parameters() if p.requires_grad}
    assert not learned & {id(p) for p in parts.policy.actors["agent"].parameters()}
    advance(parts, 2)
    save_checkpoint(tmp_path / "c.pt", parts, algorithm="maddpg", frames=120)
    advance(parts, 2)
    assert same(before["agent"], group_weights(parts, "agent"))
    assert not same(before["adversary"], group_weights(parts, "adversary"))
    resumed = cfg.build()
    resumed.anneal(load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="maddpg"), resumed))
    advance(resumed, 2)
    for one, other in ((parts.policy, resumed.policy), (parts.update.losses, resumed.update.losses)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_a_greedy_opponent_does_not_explore_and_a_sampled_one_carries_its_noise(trained: Path, kind: str) -> None:
    for sampled in (False, True):
        parts = config(kind, opponents={"agent": RunOpponent(str(trained), sampled)}).build()
        batch = next(iter(parts.collector))
        is_init = batch["is_init"][:, 1:].unsqueeze(-1)
        before, after = batch["agent", "noise"], batch["next", "agent", "noise"]
        assert torch.equal(before[:, 1:], after[:, :-1].masked_fill(is_init, 0))
        assert after.any() == sampled
        loc = batch["agent", "loc"].tanh()
        assert torch.allclose(batch["agent", "action"], loc, atol=1e-5) is not sampled
        # The noise's scale is what the opponent was left with, not this run's.
        assert parts.policy.actors["agent"].actor.noise.scale.item() == pytest.approx(0.46)
        assert parts.policy.actors["adversary"].noise.scale.item() == pytest.approx(1.0)


def test_the_learners_random_numbers_do_not_depend_on_the_opponents(trained: Path, kind: str) -> None:
    opponents: list[Any] = [RandomOpponent(), RunOpponent(str(trained))]
    built = [config(kind, opponents={"agent": opponent}).build().update.losses["team"] for opponent in opponents]
    learned = [[p for p in loss.parameters() if p.requires_grad] for loss in built]
    assert same(*learned)


def test_a_group_goes_on_from_an_earlier_run(trained: Path, kind: str) -> None:
    cfg = config(kind, initial={"agent": str(trained)}, opponents={"adversary": GreedyChaseOpponent()})
    parts = cfg.build()
    earlier = load(trained).parts
    assert same(group_weights(parts, "agent"), group_weights(earlier, "agent"))
    loss = parts.update.losses["team"]
    assert same(list(loss.actors["agent"].parameters()), list(loss.target_networks["actor_agent"].parameters()))
    assert parts.policy.actors["agent"].noise.scale.item() == pytest.approx(1.0)
    advance(parts, 2)
    assert not same(group_weights(parts, "agent"), group_weights(earlier, "agent"))


@pytest.mark.slow
def test_cross_play_of_maddpg_runs(trained: Path, kind: str, tmp_path: Path) -> None:
    frozen = run(tmp_path / "frozen", config(total_frames=60, opponents={"agent": RunOpponent(str(trained))}))
    policies = {
        "adversary": {"a": RunOpponent(str(trained)), "b": GreedyChaseOpponent()},
        "agent": {"a": RunOpponent(str(trained)), "b": RunOpponent(str(frozen)), "c": RunOpponent(str(trained), True)},
    }
    table = play(CrossPlayConfig(policies=policies, episodes=12, device="cpu"))
    assert table.labels["agent"] == ["both", "frozen", "both (sampled)"]
    assert torch.equal(table.returns["agent"][:, 0], table.returns["agent"][:, 1]), "an opponent's opponent"
    assert not torch.equal(table.returns["agent"][:, 0], table.returns["agent"][:, 2])
    loaded = load(trained)
    env = loaded.config.task.build(seed=0, device="cpu", n_envs=12)
    env = with_transforms(env, TeamSpec.from_env(env), loaded.policy)
    alone = evaluate(env, loaded.policy, ["adversary", "agent"], episodes=12, seed=EVALUATION_SEED)
    for group in ("adversary", "agent"):
        assert torch.equal(table.returns[group][0, 0], alone.by_group[group])


@pytest.mark.slow
def test_opponents_of_other_recipes(tmp_path: Path) -> None:
    """A recurrent PPO run, and a Q run where actions are discrete."""
    ppo = run(tmp_path / "ppo", ppo_config("gru", total_frames=60))
    q = run(tmp_path / "q", q_config(total_frames=60))
    discrete = {"task": tag(continuous=False), "exploration": GumbelExploration()}
    for earlier, options in ((ppo, {}), (q, discrete)):
        parts = config(opponents={"agent": RunOpponent(str(earlier), sampled=True)}, **options).build()
        before = {name: group_weights(parts, name) for name in ("adversary", "agent")}
        advance(parts, 2)
        assert same(before["agent"], group_weights(parts, "agent"))
        assert not same(before["adversary"], group_weights(parts, "adversary"))


def test_a_mixer_is_of_one_team() -> None:
    with pytest.raises(UserError, match=r"adversary, agent compete .* use mixer=none, or .* opponents\.agent=random"):
        config(mixer=VDNMixerConfig(), algorithm="facmac").build()
    own = ValueCriticConfig(sees="observation", heads="agent", network=network("mlp"))
    cfg = config(mixer=QMixerConfig(), algorithm="facmac", critic=own, opponents={"agent": RandomOpponent()})
    parts = cfg.build()
    batch = next(iter(parts.collector))
    batch["next", "adversary", "reward"].copy_(torch.tensor([1.0, 2.0, 6.0]).unsqueeze(-1).expand(6, 10, 3, 1))
    batch["next", "agent", "reward"].fill_(-100.0)
    assert torch.equal(parts.prepare(batch)["next", "reward"], torch.full((6, 10, 1), 3.0))
    before = group_weights(parts, "adversary")
    advance(parts, 2)
    assert not same(before, group_weights(parts, "adversary"))


def test_mistakes_are_named() -> None:
    cfg = config(opponents={"agent": RandomOpponent()})
    with pytest.raises(UserError, match="leave inference=None"):
        dataclasses.replace(cfg, infer_policies=True).build()
    with pytest.raises(UserError, match="nothing is left to train"):
        dataclasses.replace(cfg, opponents={"agent": RandomOpponent(), "adversary": RandomOpponent()}).build()
