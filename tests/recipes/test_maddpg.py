"""The MADDPG recipes: every part of their runs, stopped and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    GaussianExploration,
    GumbelExploration,
    HardTarget,
    LbfTask,
    OrnsteinUhlenbeckExploration,
    PettingZooTask,
    PolyakTarget,
    QMixerConfig,
    ValueCriticConfig,
    VmasTask,
)
from ctde_kit.training import iterate
from tests.recipes.resuming import (
    STATEFUL,
    Build,
    advance,
    check_part_is_restored,
    check_resumed_equals_uninterrupted,
    tensors,
)
from tests.recipes.small import NORMALIZED, averaged, network
from tests.recipes.small_maddpg import small_maddpg_config

OWN = ValueCriticConfig(sees="observation", network=network("mlp"))
OU = OrnsteinUhlenbeckExploration(frames=200)
MATD3: dict[str, Any] = {
    "twin_critics": True,
    "smoothing_deviation": 0.2,
    "policy_every": 3,
    "target": PolyakTarget(tau=0.1, every=3),
}
BUILDS: dict[str, Build] = {
    "transitions": lambda: small_maddpg_config().build(),
    "discrete": lambda: small_maddpg_config(continuous=False, replay={"prioritized": True}, **NORMALIZED).build(),
    "sequences": lambda: small_maddpg_config("gru", "sequences", exploration=OU).build(),
    "episodes": lambda: small_maddpg_config("gru", "episodes", other_actions="current").build(),
    "facmac": lambda: small_maddpg_config(
        mixer=QMixerConfig(embed_dim=5, monotonic=False), target=PolyakTarget(tau=0.1, every=3)
    ).build(),
    "random order": lambda: small_maddpg_config(
        critic=ValueCriticConfig(ordering="random", network=network("mlp"))
    ).build(),
    "averages": lambda: small_maddpg_config(critic=averaged(3)).build(),
    "matd3": lambda: small_maddpg_config(**MATD3, **NORMALIZED).build(),
    "ensembles": lambda: small_maddpg_config(ensemble_size=3).build(),
    "recurrent ensembles": lambda: small_maddpg_config("gru", "sequences", exploration=OU, ensemble_size=3).build(),
    "inference": lambda: small_maddpg_config(infer_policies=True, **NORMALIZED).build(),
    "minimax": lambda: small_maddpg_config(
        minimax_epsilon=0.1, team_weight=0.5, target=HardTarget(every=3), critic_lr=1e-3
    ).build(),
}


@pytest.mark.parametrize(
    "name",
    [name if name in ("ensembles", "matd3") else pytest.param(name, marks=pytest.mark.slow) for name in BUILDS],
)
def test_resumed_run_equals_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    check_resumed_equals_uninterrupted(BUILDS[name], "maddpg", tmp_path / "c.pt")


@pytest.mark.parametrize("part", STATEFUL)
def test_every_part_is_restored(part: str) -> None:
    check_part_is_restored(BUILDS["sequences"], part)


def test_the_action_that_is_stored_is_the_one_that_the_env_took(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = small_maddpg_config(exploration=GaussianExploration(start=3.0, frames=200)).build()
    env, taken = parts.collector.env.base_env, []
    step = type(env)._step

    def watched(self: Any, tensordict: Any) -> Any:
        taken.append(tensordict["agents", "action"].clone())
        return step(self, tensordict)

    monkeypatch.setattr(type(env), "_step", watched)
    batch = next(iter(parts.collector))
    assert torch.equal(batch["agents", "action"], torch.stack(taken, 1))
    parts.buffer.extend(parts.prepare(batch))
    stored = parts.buffer.sample()["agents", "action"]
    assert all((batch["agents", "action"].flatten(0, 1) == action).flatten(1).all(1).any() for action in stored)
    bound = parts.collector.env.full_action_spec["agents", "action"].space.high.max()
    assert stored.abs().max() <= bound
    assert (stored.abs() == bound).any()


def test_noise_anneals_in_frames_and_evaluation_has_none() -> None:
    for n_envs in (6, 12):
        task = VmasTask(name="vmas/navigation", n_envs=n_envs, max_steps=7, params={"n_agents": 2, "shared_rew": False})
        exploration = GaussianExploration(start=0.8, end=0.2, frames=120)
        parts = small_maddpg_config(task=task, exploration=exploration).build()
        scale = parts.policy.actors["agents"].noise.scale
        assert scale.item() == pytest.approx(0.8)
        scales = [(iteration.frames, scale.item()) for iteration in iterate(parts)]
        assert [frames for frames, _ in scales] == [60, 120, 180, 240]
        assert [value for _, value in scales] == pytest.approx([0.5, 0.2, 0.2, 0.2])
        data = parts.collector.env.reset()
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            first, second = (parts.policy(data.copy())["agents", "action"] for _ in range(2))
        assert torch.equal(first, second)


def test_ornstein_uhlenbeck_noise_is_carried_within_episodes_and_across_batches() -> None:
    parts = small_maddpg_config(exploration=OU).build()
    first, second = (parts.collector.rollout() for _ in range(2))
    batch = torch.cat([first, second], 1)
    state, after, starts = batch["agents", "noise"], batch["next", "agents", "noise"], batch["is_init"]
    assert starts[:, 1:].any()
    carried = after[:, :-1].masked_fill(starts[:, 1:].unsqueeze(-1), 0)
    assert torch.equal(state[:, 1:], carried)
    assert state[:, 0].eq(0).all()
    assert after.std() > 0


def test_targets_follow_every_so_many_updates() -> None:
    parts = small_maddpg_config(target=PolyakTarget(tau=0.25, every=2)).build()
    loss = parts.update.losses["team"]
    parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    first = tensors(loss.target_networks.state_dict())
    parts.update(parts.buffer.sample())
    assert all(torch.equal(a, b) for a, b in zip(first, tensors(loss.target_networks.state_dict()), strict=True))
    parts.update(parts.buffer.sample())
    online = tensors(loss.online_networks().state_dict())
    for old, new, learned in zip(first, tensors(loss.target_networks.state_dict()), online, strict=True):
        torch.testing.assert_close(new, old + 0.25 * (learned - old))


def test_actors_and_critics_have_learning_rates_of_their_own() -> None:
    parts = small_maddpg_config(lr=1e-3, critic_lr=1e-4, mixer=QMixerConfig(embed_dim=5)).build()
    loss, groups = parts.update.losses["team"], parts.update.optimizer.param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-4]
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in loss.actors.parameters()}
    learners = [*loss.critics.parameters(), *loss.mixer.parameters()]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in learners}


@pytest.mark.parametrize(("anneal_lr", "half"), [(False, [1e-3, 1e-4]), (True, [5e-4, 5e-5])])
def test_both_learning_rates_are_annealed(anneal_lr: bool, half: list[float]) -> None:
    cfg = small_maddpg_config(lr=1e-3, critic_lr=1e-4, anneal_lr=anneal_lr)
    parts = cfg.build()
    parts.anneal(cfg.total_frames // 2)
    assert [group["lr"] for group in parts.update.optimizer.param_groups] == pytest.approx(half)


@pytest.mark.parametrize(
    ("option", "value", "where"),
    [
        ("gamma", 0.77, "gamma"),
        ("other_actions", "current", "other_actions"),
        ("team_weight", 0.3, "team_weight"),
        ("action_regularization", 0.02, "action_regularization"),
        ("value_loss", "huber", "value_loss"),
        ("huber_delta", 0.4, "huber_delta"),
        ("minimax_epsilon", 0.05, "adversary.epsilon"),
        ("smoothing_deviation", 0.3, "smoothing.deviation"),
        ("temperature", 0.6, "actors.agents.temperature"),
    ],
)
def test_options_reach_the_loss(option: str, value: Any, where: str) -> None:
    loss: Any = small_maddpg_config(**{option: value}).build().update.losses["team"]
    for name in where.split("."):
        loss = getattr(loss, name)
    assert loss == value


def test_options_of_beliefs_and_hidden_states_reach_the_loss() -> None:
    options = {"infer_policies": True, "inference_entropy": 0.2, "inference_deviation": 0.3}
    inference = small_maddpg_config(**options).build().update.losses["team"].inference
    assert (inference.entropy_coeff, inference.deviation) == (0.2, 0.3)
    recurrent = small_maddpg_config("gru", "sequences", hidden_from="zero")
    assert not recurrent.build().update.losses["team"].use_stored_hidden


def test_matd3s_options_reach_the_parts() -> None:
    parts = small_maddpg_config(**MATD3, smoothing_limit=0.7, critic_lr=1e-4, critic=averaged(5)).build()
    loss, step = parts.update.losses["team"], parts.update.update
    assert (loss.smoothing.limit, step.every) == (0.7, {"loss_actor": 3})
    critics = {id(p) for p in [*loss.critics.parameters(), *loss.twin_critics.parameters()]}
    assert {id(p) for p in parts.update.optimizer.param_groups[1]["params"]} == critics
    assert {id(p) for p in parts.update.rules["average"].parameters} == critics
    actor = loss.actors["agents"].agent_network.network.layers[0].weight
    parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    for index in range(1, 7):
        before = actor.detach().clone()
        parts.update(parts.buffer.sample())
        assert torch.equal(actor, before) is (index % 3 != 0)


@pytest.mark.parametrize("kind", [pytest.param("mlp", marks=pytest.mark.slow), "gru"])
@pytest.mark.parametrize(
    "task",
    [
        LbfTask(name="lbf/foraging", env_id="Foraging-8x8-2p-2f-coop-v3", n_envs=4, n_workers=1, max_steps=7),
        PettingZooTask(
            name="tag",
            env="mpe2/simple_tag_v3",
            n_envs=4,
            n_workers=1,
            max_steps=7,
            groups_compete=False,
            params={"max_cycles": 7},
        ),
        VmasTask(name="vmas/simple_tag", n_envs=4, max_steps=7, groups_compete=True),
    ],
    ids=["masks", "groups", "continuous groups"],
)
def test_masks_and_several_groups_train(task: Any, kind: str) -> None:
    form = "transitions" if kind == "mlp" else "episodes"
    continuous = isinstance(task, VmasTask)
    exploration = GaussianExploration() if continuous else GumbelExploration()
    parts = small_maddpg_config(kind, form, task=task, exploration=exploration).build()
    metrics = [iteration.metrics for iteration in iterate(parts)]
    assert sum(row["num_updates"] for row in metrics) == 16
    assert metrics[-1]["grad_norm"] > 0
    assert ("adversary/td_error" in metrics[-1]) is ("tag" in task.name)
    parts.collector.shutdown()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small_maddpg_config(continuous=False, exploration=OU).build(), "are discrete; use GumbelNoise"),
        (lambda: small_maddpg_config(exploration=GumbelExploration()).build(), "are continuous; use GaussianNoise"),
        (lambda: small_maddpg_config("mlp", "sequences").build(), "replay.form.burn_in: these networks"),
        (lambda: advance(small_maddpg_config("gru").build(), 1), "use replay=sequences or replay=episodes"),
        (
            lambda: small_maddpg_config(
                critic=ValueCriticConfig(sees="state", heads="agent", network=network("mlp"))
            ).build(),
            "use sees='team'",
        ),
        (
            lambda: small_maddpg_config(critic=ValueCriticConfig(network=network("mlp", normalize=True))).build(),
            "critic.network.normalize=true",
        ),
        (
            lambda: small_maddpg_config(mixer=QMixerConfig(), minimax_epsilon=0.1).build(),
            "give one of them only",
        ),
        (
            lambda: small_maddpg_config(critic=OWN, other_actions="current").build(),
            "other_actions=current: these",
        ),
        (lambda: small_maddpg_config(critic=OWN, minimax_epsilon=0.1).build(), "minimax_epsilon: these critics"),
        (lambda: small_maddpg_config(critic=OWN, infer_policies=True).build(), "infer_policies=true: these"),
        (lambda: small_maddpg_config(mixer=QMixerConfig(), team_weight=0.5).build(), "team_weight=0.5, other"),
        (lambda: small_maddpg_config(mixer=QMixerConfig(), twin_critics=True).build(), "twin_critics: with a mixer"),
        (
            lambda: small_maddpg_config(continuous=False, smoothing_deviation=0.2).build(),
            "smoothing: the actions of group 'agents' are discrete",
        ),
        (lambda: small_maddpg_config(policy_every=0), "policy_every=0"),
        (lambda: small_maddpg_config(smoothing_limit=-1.0), "smoothing_limit=-1.0"),
        (lambda: small_maddpg_config(team_weight=1.5), "team_weight=1.5: expected a ratio"),
        (lambda: small_maddpg_config(other_actions="best"), "other_actions=best: expected one of replay, current"),
        (lambda: small_maddpg_config(minimax_epsilon=-1.0), "minimax_epsilon=-1.0"),
        (lambda: GaussianExploration(start=-1.0), "exploration.start=-1.0"),
        (lambda: PolyakTarget(every=0), "target.every=0"),
    ],
)
def test_mistakes_are_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
