"""MADDPG's recipe with policy ensembles: who acts in an episode, what is stored, opponents, evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.recipes import RunOpponent, VDNMixerConfig, load
from ctde_kit.recipes.commands.cross_play import play
from ctde_kit.recipes.configs.command_options import CrossPlayConfig
from ctde_kit.training import evaluate
from tests.recipes.resuming import advance
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.test_maddpg_opponents import config as tag_config
from tests.recipes.test_opponents import group_weights, run, same

SIZE = 3
INDEX = ("agents", "sub_policy")


def build(kind: str = "mlp", form: str = "transitions", **options: Any) -> Any:
    return small_maddpg_config(kind, form, ensemble_size=SIZE, **options).build()


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_the_draw_is_constant_within_an_episode_across_batches_and_varied(kind: str) -> None:
    parts = build(kind, "transitions" if kind == "mlp" else "sequences")
    batches = [parts.collector.rollout() for _ in range(5)]
    index, following = (torch.cat([batch.get(key) for batch in batches], 1) for key in (INDEX, ("next", *INDEX)))
    starts = torch.cat([batch["is_init"] for batch in batches], 1)
    assert index.shape == (6, 50, 2)
    assert index.dtype == torch.long
    assert torch.equal(index, following), "the index of a transition is the same after it, at an end too"
    goes_on = ~starts[:, 1:].expand(6, 49, 2)
    assert (index[:, 1:] == index[:, :-1])[goes_on].all()
    assert starts[:, 1:].any()
    first = index[starts.expand(6, 50, 2)].reshape(-1, 2)
    assert {tuple(row) for row in first.tolist()} == {(i, j) for i in range(SIZE) for j in range(SIZE)}
    new = index[:, 7:] != index[:, :-7]  # episodes are of 7 steps
    assert new.any()
    assert (new[..., 0] != new[..., 1]).any(), "each agent by itself"


def test_draws_are_uniform() -> None:
    parts = build(frames_per_batch=6 * 7 * 60, total_frames=6 * 7 * 60)
    batch = parts.collector.rollout()
    first = batch[INDEX][batch["is_init"].squeeze(-1)]
    assert len(first) == 360
    shares = torch.nn.functional.one_hot(first, SIZE).float().mean(0)
    torch.testing.assert_close(shares, torch.full((2, SIZE), 1 / SIZE), rtol=0, atol=0.08)


def test_what_acted_is_what_is_stored() -> None:
    parts = build()
    batch = next(iter(parts.collector))
    actor = parts.policy.actors["agents"]
    each = [network(batch["agents", "observation"]) for network in actor.agent_network.network.networks]
    chosen = torch.stack(each, -2).gather(-2, batch[INDEX][..., None, None].expand(6, 10, 2, 1, 2)).squeeze(-2)
    torch.testing.assert_close(batch["agents", "loc"], chosen)
    parts.buffer.extend(parts.prepare(batch))
    sample = parts.buffer.sample()
    assert torch.equal(sample[INDEX], sample["next", *INDEX])


def test_every_sub_policy_learns_and_all_are_saved() -> None:
    parts = build()
    networks = parts.policy.actors["agents"].agent_network.network.networks
    assert len(networks) == SIZE
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    advance(parts, 3)
    for network, then in zip(networks, before, strict=True):
        assert not same(then, list(network.parameters()))
    saved = parts.policy.state_dict()
    assert {name.split("networks.")[1][0] for name in saved if "networks." in name} == {"0", "1", "2"}
    assert torch.equal(
        parts.collector.state_dict()["next_root"]["agents/sub_policy"], parts.collector._next_root[INDEX]
    )


def test_one_is_off() -> None:
    parts = small_maddpg_config(ensemble_size=1).build()
    actor = parts.policy.actors["agents"]
    assert actor.sub_policies is None
    assert INDEX not in parts.collector.rollout().keys(True)
    assert type(actor.agent_network.network).__name__ == "MultiAgentMLP"


def test_evaluation_draws_for_each_episode_and_is_greedy() -> None:
    parts = build()
    seen = []
    actor = parts.policy.actors["agents"]
    hook = actor.register_forward_hook(
        lambda _, __, out: seen.append(out.select(INDEX, ("agents", "action"), "is_init"))
    )
    state = torch.get_rng_state()
    one = evaluate(parts.collector.env, parts.policy, ["agents"], episodes=12, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    steps = torch.stack(seen, 1)
    assert steps[INDEX].unique().tolist() == [0, 1, 2]
    goes_on = ~steps["is_init"][:, 1:].expand(-1, -1, 2)
    assert (steps[INDEX][:, 1:] == steps[INDEX][:, :-1])[goes_on].all()
    two = evaluate(parts.collector.env, parts.policy, ["agents"], episodes=12, seed=3)
    assert torch.equal(one.by_group["agents"], two.by_group["agents"])
    hook.remove()
    data = parts.collector.env.reset().set("is_init", torch.zeros(6, 1, dtype=torch.bool))
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = (parts.policy(data.copy())["agents", "action"] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.slow
def test_an_ensemble_as_an_opponent_and_in_cross_play(tmp_path: Path) -> None:
    earlier = run(tmp_path / "earlier", tag_config(ensemble_size=SIZE, total_frames=120))
    loaded = load(earlier)
    parts = tag_config(opponents={"agent": RunOpponent(str(earlier))}).build()
    before = group_weights(parts, "agent")
    assert same(before, group_weights(loaded.parts, "agent"))
    batch = next(iter(parts.collector))
    index = batch["agent", "sub_policy"]
    assert (index[:, 1:] == index[:, :-1])[~batch["is_init"][:, 1:].expand(6, 9, 2)].all()
    assert index.unique().tolist() == [0, 1, 2]
    assert ("adversary", "sub_policy") not in batch.keys(True)
    advance(parts, 2)
    assert same(before, group_weights(parts, "agent"))
    policies = {"adversary": {"a": RunOpponent(str(earlier))}, "agent": {"a": RunOpponent(str(earlier))}}
    assert play(CrossPlayConfig(policies=policies, episodes=6, device="cpu")).labels["agent"] == ["earlier"]


@pytest.mark.parametrize(
    "options", [{"infer_policies": True}, {"minimax_epsilon": 0.1}, {"continuous": False, "other_actions": "current"}]
)
def test_the_variants_train_with_ensembles(options: dict[str, Any]) -> None:
    parts = build(**options)
    networks = parts.policy.actors["agents"].agent_network.network.networks
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    advance(parts, 2)
    assert not any(same(then, list(network.parameters())) for network, then in zip(networks, before, strict=True))


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="ensemble_size=0: expected a number above 0"):
        small_maddpg_config(ensemble_size=0)
    with pytest.raises(UserError, match="without sub_policies, or mixer=None"):
        build(mixer=VDNMixerConfig())
