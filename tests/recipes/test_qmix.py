"""The Q-learning recipes: every part of their runs, stopped and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    CentralWeighting,
    HardTarget,
    LbfTask,
    MatrixTask,
    NoMixer,
    OptimisticWeighting,
    PettingZooTask,
    QMixerConfig,
    QPLEXMixerConfig,
    ReplayConfig,
    SequenceForm,
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
from tests.recipes.small import NORMALIZED, network
from tests.recipes.small_q import navigation, small_pqn_config, small_q_config

TWO_STEP = MatrixTask(
    payoff=[[[0, 0], [0, 0]], [[7, 7], [7, 7]], [[0, 1], [1, 8]]],
    next_state=[[[1, 1], [2, 2]], [[-1, -1], [-1, -1]], [[-1, -1], [-1, -1]]],
    n_envs=6,
)
BUILDS: dict[str, Build] = {
    "transitions": lambda: small_q_config().build(),
    "prioritized": lambda: small_q_config(replay={"prioritized": True}).build(),
    "sequences": lambda: small_q_config("gru", "sequences", last_action=True, **NORMALIZED).build(),
    "disk": lambda: small_q_config("gru", "sequences", replay={"stored_on": "disk", "prioritized": True}).build(),
    "episodes": lambda: small_q_config("gru", "episodes", mixer=QPLEXMixerConfig(n_heads=2)).build(),
    "hard": lambda: small_q_config(target=HardTarget(every=3), mixer=NoMixer(), anneal_lr=True).build(),
    "weighted": lambda: small_q_config("gru", "sequences", weighting=CentralWeighting(num_cells=[6])).build(),
    "matrix": lambda: small_q_config(task=TWO_STEP).build(),
    "pqn": lambda: small_pqn_config(**NORMALIZED).build(),
    "pqn, gru": lambda: small_pqn_config("gru").build(),
}


QUICK = ("transitions", "sequences", "weighted", "matrix", "pqn")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BUILDS]
)
def test_resumed_run_equals_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    check_resumed_equals_uninterrupted(BUILDS[name], "qmix", tmp_path / "c.pt")


@pytest.mark.parametrize("part", STATEFUL)
def test_every_part_is_restored(part: str) -> None:
    check_part_is_restored(BUILDS["sequences"], part)


def test_replay_gives_frames_of_earlier_iterations() -> None:
    parts = small_q_config(replay={"capacity": 10_000, "batch_size": 64}).build()
    seen = []
    for iteration in iterate(parts):
        seen.append(iteration.batch["agents", "observation"].flatten(0, 1).clone())
    sample = parts.buffer.sample()["agents", "observation"]
    of_first = [(frame == seen[0]).flatten(1).all(1).any() for frame in sample]
    of_last = [(frame == seen[-1]).flatten(1).all(1).any() for frame in sample]
    assert any(of_first)
    assert any(of_last)


def test_errors_become_priorities_and_weights() -> None:
    parts = advance(small_q_config(replay={"prioritized": True, "batch_size": 16}).build(), 3)
    assert len(parts.buffer.sample()["priority_weight"].unique()) > 4
    uniform = advance(small_q_config().build(), 3)
    assert "priority_weight" not in uniform.buffer.sample()


def test_updates_follow_frames_not_iterations() -> None:
    for n_envs, frames_per_batch in ((6, 60), (12, 120)):
        task = navigation()
        task.n_envs = n_envs
        parts = small_q_config(task=task, frames_per_batch=frames_per_batch, learning_starts=60).build()
        updates = [iteration.metrics["num_updates"] for iteration in iterate(parts)]
        assert sum(updates) == int(0.07 * (240 - 60))
        assert updates == ([0, 4, 4, 4] if n_envs == 6 else [4, 8])


def test_epsilon_anneals_in_frames() -> None:
    parts = small_q_config(epsilon_start=0.8, epsilon_end=0.2, epsilon_frames=120).build()
    actor = parts.policy.actors["agents"]
    assert actor.epsilon.item() == pytest.approx(0.8)
    epsilons = [(it.frames, actor.epsilon.item()) for it in iterate(parts)]
    assert [frames for frames, _ in epsilons] == [60, 120, 180, 240]
    assert [epsilon for _, epsilon in epsilons] == pytest.approx([0.5, 0.2, 0.2, 0.2])


def test_targets_follow_by_their_rule() -> None:
    parts = small_q_config(target=HardTarget(every=3)).build()
    loss = parts.update.losses["team"]
    batch = next(iter(parts.collector))
    parts.buffer.extend(parts.prepare(batch))
    first = tensors(loss.target_networks.state_dict())
    for update in range(1, 7):
        parts.update(parts.buffer.sample())
        now, online = tensors(loss.target_networks.state_dict()), tensors(loss.online_networks().state_dict())
        assert all(torch.equal(a, b) for a, b in zip(now, online if update % 3 == 0 else first, strict=True)), update
        first = now


def test_polyak_moves_a_share_of_the_way() -> None:
    parts = small_q_config().build()
    loss = parts.update.losses["team"]
    parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    before = tensors(loss.target_networks.state_dict())
    parts.update(parts.buffer.sample())
    online = tensors(loss.online_networks().state_dict())
    for old, new, learned in zip(before, tensors(loss.target_networks.state_dict()), online, strict=True):
        torch.testing.assert_close(new, old + 0.1 * (learned - old))


@pytest.mark.parametrize("kind", ["mlp", "gru"])
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
    ],
    ids=["masks", "groups"],
)
def test_action_masks_and_several_groups_train(task: Any, kind: str) -> None:
    form = "transitions" if kind == "mlp" else "episodes"
    parts = small_q_config(kind, form, task=task, last_action=True).build()
    metrics = [iteration.metrics for iteration in iterate(parts)]
    assert sum(row["num_updates"] for row in metrics) == 16
    assert metrics[-1]["grad_norm"] > 0
    parts.collector.shutdown()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: small_q_config(task=VmasTask(name="vmas/navigation", n_envs=6, continuous_actions=True)).build(),
            "Q-learning needs discrete actions; use an env that has them",
        ),
        (lambda: small_q_config(mixer=QMixerConfig(sees="state")).build(), "use sees='team'"),
        (
            lambda: small_q_config(replay={"capacity": 3}, form="sequences", kind="gru").build(),
            "expected room for an item of 6 frames",
        ),
        (lambda: small_q_config("mlp", "sequences").build(), "replay.form.burn_in: these networks"),
        (lambda: advance(small_q_config("gru").build(), 1), "use replay=sequences or replay=episodes"),
        (
            lambda: advance(
                small_q_config(
                    "gru", "sequences", replay={"capacity": 600}, frames_per_batch=30, updates_per_frame=1
                ).build(),
                1,
            ),
            "after 30 frames no item of 6 steps is whole",
        ),
        (lambda: small_q_config(epsilon_end=2.0), "epsilon_end=2.0: expected a ratio"),
        (lambda: small_q_config(updates_per_frame=0), "updates_per_frame=0"),
        (lambda: small_q_config(team_reward="max"), "team_reward=max: expected one of mean, sum"),
        (lambda: small_q_config(hidden_from="nowhere"), "hidden_from=nowhere"),
        (lambda: SequenceForm(length=0), "replay.form.length=0"),
        (lambda: ReplayConfig(form=SequenceForm(), stored_on="tape"), "replay.stored_on=tape"),
        (lambda: QMixerConfig(sees="nothing"), "mixer.sees=nothing"),
        (lambda: OptimisticWeighting(alpha=0), "weighting.alpha=0"),
        (lambda: CentralWeighting(alpha=1.5), "weighting.alpha=1.5: expected a ratio"),
        (
            lambda: small_q_config(mixer=QPLEXMixerConfig(), weighting=CentralWeighting()),
            "weighting: only errors of QMIX's value are weighted",
        ),
        (lambda: small_pqn_config(actor=network("mlp")), "use actor.layer_norm=true"),
    ],
)
def test_mistakes_are_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
