"""Runs whose observations and rewards are normalized; compiled, resumed, evaluated and exported ones stand
with the others."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.modules import Input, ObservationNorm, RunningMoments
from ctde_kit.recipes import NoMixer, QMixerConfig, RunOpponent, ValueCriticConfig, load
from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import (
    Parts,
    evaluate,
    iterate,
    load_parts,
    read_checkpoint,
    save_checkpoint,
)
from tests.recipes.resuming import advance
from tests.recipes.small import NORMALIZED, network, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_q import small_pqn_config, small_q_config
from tests.recipes.test_compile_option import first_metrics
from tests.recipes.test_opponents import config as tag_config
from tests.training.test_checkpoint import assert_same

OBSERVATION = ("agents", "observation")
CONFIGS: dict[str, Callable[..., Any]] = {
    "mappo": small_config,
    "mappo gru": lambda **options: small_config("gru", **options),
    "mappo state": lambda **options: small_config(
        critic=ValueCriticConfig(sees="agent_state", build_state=True, network=network("mlp")), **options
    ),
    "qmix": lambda **options: small_q_config("gru", "sequences", **options),
    "iql": lambda **options: small_q_config(mixer=NoMixer(), **options),
    "pqn": small_pqn_config,
    "maddpg": small_maddpg_config,
    "facmac": lambda **options: small_maddpg_config(
        critic=ValueCriticConfig(sees="observation", network=network("mlp")), mixer=QMixerConfig(embed_dim=5), **options
    ),
}


def build(name: str) -> Parts:
    return CONFIGS[name](**NORMALIZED).build()


def statistics(parts: Parts) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in parts.observation_norm.state_dict().items()}


def of_rewards(parts: Parts) -> list[RunningMoments]:
    prepare: Any = parts.prepare
    norm = next(part for part in prepare.modules() if type(part).__name__ == "RewardNorm")
    return list(norm.moments.values())


@pytest.mark.parametrize("name", ["mappo state", "qmix", "iql", "pqn", "maddpg", "facmac"])
def test_one_set_of_statistics_serves_all_networks_and_moves_after_the_updates(name: str) -> None:
    parts = build(name)
    norm: Any = parts.observation_norm
    networks = [*parts.update.losses.modules(), *parts.policy.modules()]
    read = [(part, key) for part in networks if isinstance(part, Input) for key, *_ in part.parts]
    read = [(part, key) for part, key in read if key[-1] in ("observation", "state")]
    assert len(read) >= 2
    assert all(part.normalizer(key) is norm.moments_of(key) for part, key in read)

    seen, found = [], statistics(parts)
    update = parts.update

    def watched(minibatch: Any) -> Any:
        assert all(torch.equal(value, found[name]) for name, value in statistics(parts).items())
        return update(minibatch)

    object.__setattr__(parts, "update", watched)
    for iteration in islice(iterate(parts), 2):
        seen.append(iteration.batch[OBSERVATION].reshape(-1, 18))
        found = statistics(parts)
        everything = torch.cat(seen).double()
        moments = norm.moments_of(OBSERVATION)
        torch.testing.assert_close(moments.mean, everything.mean(0))
        torch.testing.assert_close(moments.variance, everything.var(0, correction=0))
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["mappo gru", "mappo state"])
def test_the_first_ratio_of_each_iteration_is_1(name: str) -> None:
    parts = build(name)
    firsts = first_metrics(parts)
    later = [iteration.metrics["approx_kl"] for iteration in iterate(parts)]
    assert len(firsts) == len(later) == 4
    for metrics in firsts:
        assert abs(metrics["approx_kl"].item()) < 1e-6
        assert metrics["clip_fraction"].item() == 0
    assert min(later) > 1e-6


@pytest.mark.parametrize("part", ["observation_norm", "prepare"])
def test_statistics_that_were_changed_are_restored(part: str, tmp_path: Path) -> None:
    parts = advance(build("mappo"), 2)
    save_checkpoint(tmp_path / "c.pt", parts, algorithm="any", frames=120)
    expected = {name: value.clone() for name, value in getattr(parts, part).state_dict().items() if "count" in name}
    for name, value in getattr(parts, part).state_dict().items():
        if name in expected:
            value.add_(7)
    load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="any"), parts)
    restored = getattr(parts, part).state_dict()
    assert expected
    assert all(torch.equal(value, restored[name]) for name, value in expected.items())


def test_what_is_logged_and_evaluated_are_the_tasks_own_returns() -> None:
    """The first batch is collected alike: nothing has been normalized yet."""
    plain = small_config().build()
    assert plain.observation_norm is None
    assert not any(isinstance(part, RunningMoments) for part in plain.update.losses.modules())
    theirs = next(iterate(plain)).batch
    normalized = small_config(normalize_rewards=True).build()
    ours = next(iterate(normalized)).batch
    for key in ("reward", "episode_reward"):
        assert torch.equal(ours["next", "agents", key], theirs["next", "agents", key])
    (scale,) = of_rewards(normalized)
    assert not torch.allclose(ours["agents", "value_target"], theirs["agents", "value_target"])
    assert scale.count == theirs["next", "agents", "reward"].numel()


def test_evaluation_uses_the_statistics_and_moves_none() -> None:
    parts = advance(build("mappo"), 2)
    policy: Any = parts.policy
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    assert any(name.endswith("agents/observation.count") and value == 240 for name, value in before.items())

    def returns() -> torch.Tensor:
        env = small_config().task.build(seed=0, device="cpu", n_envs=4)
        env = with_transforms(env, TeamSpec.from_env(env), policy)
        return evaluate(env, policy, ["agents"], episodes=4, seed=5).by_group["agents"]

    found = returns()
    assert_same(before, policy.state_dict())
    parts.observation_norm.load_state_dict(ObservationNorm(TeamSpec.from_env(parts.collector.env)).state_dict())
    assert not torch.equal(returns(), found)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, no_curves: None) -> Path:
    """A run of both groups whose networks read normalized observations."""
    directory = tmp_path_factory.mktemp("runs") / "earlier"
    start(tag_config(total_frames=60, seed=5, **NORMALIZED), directory)
    return directory


def test_opponents_bring_the_statistics_of_their_own_run(earlier: Path) -> None:
    saved = load(earlier).policy.state_dict()
    parts = tag_config(opponents={"agent": RunOpponent(str(earlier))}, **NORMALIZED).build()
    advance(parts, 2)
    frozen = [value for name, value in parts.policy.state_dict().items() if "normalizers.agent/observation." in name]
    own = [value for name, value in saved.items() if "normalizers.agent/observation." in name]
    assert len(own) == 3
    assert all(torch.equal(one, other) for one, other in zip(own, frozen, strict=True))
    # The learner's critic sees the same group, in units of what this run has seen.
    assert statistics(parts)["moments.agent/observation.count"] == 2 * 60 * 2


def test_a_group_that_goes_on_brings_its_statistics(earlier: Path) -> None:
    initial = {"agent": str(earlier)}
    parts = tag_config(initial=initial, **NORMALIZED).build()
    counts = {name: value.item() for name, value in statistics(parts).items() if name.endswith("count")}
    assert counts == {"moments.adversary/observation.count": 0, "moments.agent/observation.count": 60 * 2}
    with pytest.raises(UserError, match="normalize_observations"):
        tag_config(initial=initial).build()
