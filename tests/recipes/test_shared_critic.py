"""``critic=shared``: runs whose actor and critic are one network, and the policies that they leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import HAPPOConfig, RayDistribution, RunOpponent, SharedCriticConfig, SyncConfig, load
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.running import start
from ctde_kit.training import iterate
from tests.recipes.command_line import assert_one_line, call_here, composed
from tests.recipes.resuming import advance, check_resumed_equals_uninterrupted, weights
from tests.recipes.small import NORMALIZED, network, shared_config, small_config
from tests.recipes.test_evaluate_command import tag

KINDS = {"mlp": {}, "gru": NORMALIZED}


@pytest.mark.parametrize("kind", list(KINDS))
def test_resumed_run_equals_the_run_that_never_stopped(kind: str, tmp_path: Path) -> None:
    check_resumed_equals_uninterrupted(lambda: shared_config(kind, **KINDS[kind]).build(), "ippo", tmp_path / "c.pt")


@pytest.mark.parametrize("kind", list(KINDS))
def test_its_parameters_are_the_policys_and_nothing_is_carried_beside_it(kind: str) -> None:
    parts: Any = shared_config(kind).build()
    policy = [id(parameter) for parameter in parts.policy.parameters()]
    optimized = [id(p) for options in parts.update.optimizer.param_groups for p in options["params"]]
    assert optimized == policy
    ratios = [iteration.metrics["approx_kl"] for iteration in iterate(parts)]
    assert len(ratios) == 4
    assert "critic_hidden" not in str(parts.buffer.items.keys(True))
    carried = [value for name, value in parts.prepare.state_dict().items() if name.endswith("_extra_state")]
    assert carried == [{"critic_hidden": None}]


def test_the_command_gives_it_to_ippo_a2c_and_mappo() -> None:
    for recipe in ("ippo", "a2c", "mappo"):
        config = composed(recipe, "critic=shared", "network@actor=gru")
        assert config.critic == SharedCriticConfig()
        assert config.policy().value_head
        assert not composed(recipe).policy().value_head


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, no_curves: None) -> Path:
    """A run of two groups, each with one recurrent network."""
    directory = tmp_path_factory.mktemp("runs") / "earlier"
    start(shared_config("gru", task=tag(), total_frames=120, seed=5), directory)
    return directory


def test_a_saved_policy_acts_alone_and_for_others(earlier: Path) -> None:
    loaded = load(earlier)
    assert read_config(earlier).critic == SharedCriticConfig()
    before = [parameter.clone() for parameter in loaded.policy.actors["agent"].parameters()]
    options: dict[str, Any] = {"task": tag(), "opponents": {"agent": RunOpponent(str(earlier))}}
    parts: Any = advance(shared_config("mlp", **options).build(), 2)
    frozen = list(parts.policy.actors["agent"].parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, frozen, strict=True))
    assert list(parts.update.losses) == ["adversary"]
    initial = shared_config("gru", task=tag(), initial={"agent": str(earlier)}).build()
    taken = list(initial.policy.actors["agent"].parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, taken, strict=True))


def test_a_run_with_another_network_does_not_fit(earlier: Path) -> None:
    with pytest.raises(UserError, match=r"does not fit group 'agent'.*critic=shared"):
        small_config("gru", task=tag(), initial={"agent": str(earlier)}).build()


@pytest.mark.parametrize("across_groups", [False, True])
def test_agents_that_talk_may_share_it_too(across_groups: bool) -> None:
    actor = network("commnet gru", across_groups=across_groups)
    parts: Any = shared_config(actor=actor, task=tag(), sequence_length=5).build()
    for _ in range(2):
        batch = parts.collector.rollout()
        collected = {group: batch[group, "state_value"].clone() for group in ("adversary", "agent")}
        parts.prepare(batch)
        for group, value in collected.items():
            torch.testing.assert_close(batch[group, "state_value"], value, rtol=0, atol=1e-5)
    before = weights(parts)
    advance(parts, 1)
    assert not torch.equal(weights(parts), before)


MEMBERS = RayDistribution(members=2, sync=SyncConfig(what="best_critic"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": SharedCriticConfig(network=network("gru"))}, "critic.network: with critic=shared the actor's"),
        ({"critic": SharedCriticConfig(average_every=2)}, "critic.average_every: with critic=shared the actor's"),
        ({"distributed": MEMBERS}, "critic=shared: distributed.sync.what=best_critic replaces critics and keeps"),
    ],
)
def test_what_needs_a_critic_of_its_own_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        shared_config(**options)
    assert str(error.value).startswith(message)
    assert "use critic=decentralized" in str(error.value)
    assert "\n" not in str(error.value)


def test_happo_is_refused_from_python() -> None:
    with pytest.raises(UserError, match=r"expected critic\.heads=one .*found critic=shared"):
        HAPPOConfig(critic=SharedCriticConfig())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("happo", "it does not fit ctde-happo; choose one of centralized, state, or run another recipe"),
        ("coma", "it does not fit ctde-coma; choose counterfactual, or run another recipe"),
        ("iddpg", "it does not fit ctde-iddpg; choose decentralized, or run another recipe"),
        ("maddpg", "it does not fit ctde-maddpg; choose one of agent_state, attention, centralized, decentralized, "),
        ("masac", "it does not fit ctde-masac; choose one of agent_state, attention, centralized, decentralized, "),
        ("qmix", "critic=shared: ctde-qmix has no critic"),
    ],
)
def test_recipes_that_have_other_critics_refuse_it_in_one_line(recipe: str, message: str, tmp_path: Path) -> None:
    result = call_here(tmp_path, recipe, "critic=shared", "task.n_envs=2", "frames_per_batch=20")
    assert_one_line(result, message, program=f"ctde-{recipe}")


@pytest.mark.parametrize("option", ["critic.network.num_cells=[256,256]", "network@critic.network=mlp"])
def test_options_of_a_network_that_is_not_there_are_refused_also_at_their_defaults(option: str, tmp_path: Path) -> None:
    result = call_here(tmp_path, "ippo", "critic=shared", option)
    assert_one_line(
        result, f"{option}: nothing reads it here; with critic=shared the actor's network", program="ctde-ippo"
    )
