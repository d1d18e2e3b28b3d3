"""Groups that train while others are frozen, scripted or go on from an earlier run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    GreedyChaseOpponent,
    NoMixer,
    RandomOpponent,
    RunOpponent,
    VDNMixerConfig,
    VmasTask,
    load,
)
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.training import Parts, evaluate, load_parts, read_checkpoint, save_checkpoint
from tests.recipes.resuming import advance
from tests.recipes.small import network, small_config
from tests.recipes.small_q import small_q_config


def tag(continuous: bool = True, n_prey: int = 2, **options: Any) -> VmasTask:
    """Six envs, episodes of 7 steps, 3 predators and 2 prey."""
    params = {"num_good_agents": n_prey, **options.pop("params", {})}
    return VmasTask(
        name="vmas/simple_tag",
        n_envs=6,
        max_steps=7,
        continuous_actions=continuous,
        params=params,
        groups_compete=True,
        **options,
    )


def config(kind: str = "mlp", **options: Any) -> Any:
    return small_config(kind, **{"task": tag(), **options})


def q_config(kind: str = "mlp", **options: Any) -> Any:
    form = "transitions" if kind == "mlp" else "sequences"
    return small_q_config(kind, form, **{"task": tag(continuous=False), "mixer": NoMixer(), **options})


def run(path: Path, cfg: Any) -> Path:
    start(cfg, path)
    return path


def group_weights(parts: Parts, group: str) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in parts.policy.actors[group].parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    assert one
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module", params=["mlp", pytest.param("gru", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both groups."""
    return run(tmp_path_factory.mktemp("runs") / "both", config(kind, total_frames=120, seed=5))


def test_a_frozen_group_stays_bit_identical_and_the_other_learns(trained: Path, kind: str) -> None:
    parts = config(kind, opponents={"agent": RunOpponent(str(trained))}).build()
    before = {name: group_weights(parts, name) for name in ("adversary", "agent")}
    assert same(before["agent"], group_weights(load(trained).parts, "agent"))
    assert list(parts.update.losses) == ["adversary"]
    learned = {id(p) for options in parts.update.optimizer.param_groups for p in options["params"]}
    assert not learned & {id(p) for p in parts.policy.actors["agent"].parameters()}
    advance(parts, 3)
    assert same(before["agent"], group_weights(parts, "agent"))
    assert not same(before["adversary"], group_weights(parts, "adversary"))


def test_one_directory_is_one_opponent_however_it_is_written() -> None:
    assert RunOpponent("./runs//tag/") == RunOpponent("runs/tag") != RunOpponent("/runs/tag")


def test_a_greedy_opponent_does_not_explore_and_a_sampled_one_does(trained: Path, kind: str) -> None:
    for sampled in (False, True):
        parts = config(kind, opponents={"agent": RunOpponent(str(trained), sampled)}).build()
        batch = next(iter(parts.collector))
        loc = batch["agent", "loc"].tanh()
        assert torch.allclose(batch["agent", "action"], loc, atol=1e-5) is not sampled
        assert not torch.allclose(batch["adversary", "action"], batch["adversary", "loc"].tanh(), atol=1e-2)


def test_the_learners_random_numbers_do_not_depend_on_the_opponents(trained: Path, kind: str) -> None:
    opponents: list[Any] = [RandomOpponent(), RunOpponent(str(trained))]
    built = [config(kind, opponents={"agent": opponent}).build() for opponent in opponents]
    # The critic is drawn after the opponent was built.
    assert same(*(list(parts.update.losses.parameters()) for parts in built))


def test_hidden_states_of_a_frozen_recurrent_group_are_carried_and_reset(tmp_path: Path) -> None:
    recurrent = run(tmp_path / "gru", config("gru", total_frames=60))
    parts = config("mlp", opponents={"agent": RunOpponent(str(recurrent))}).build()
    batch = next(iter(parts.collector))
    hidden, following = batch["agent", "actor_hidden"], batch["next", "agent", "actor_hidden"]
    is_init = batch["is_init"].squeeze(-1)
    assert hidden.shape == (6, 10, 2, 6)
    assert ("adversary", "actor_hidden") not in batch.keys(True)
    assert is_init[:, 0].all()
    assert is_init[:, 7].all()
    assert not hidden[is_init].any()
    inside = ~is_init[:, 1:]
    assert torch.equal(hidden[:, 1:][inside], following[:, :-1][inside])
    assert hidden[:, 1:][inside].abs().min(-1).values.gt(0).any()


def test_resume_with_a_frozen_group_equals_the_run_that_never_stopped(trained: Path, kind: str, tmp_path: Path) -> None:
    for opponent in (RunOpponent(str(trained), sampled=True), RandomOpponent()):
        cfg = config(kind, opponents={"agent": opponent})
        whole = advance(cfg.build(), 2)
        save_checkpoint(tmp_path / "c.pt", whole, algorithm="mappo", frames=120)
        advance(whole, 2)
        resumed = cfg.build()
        load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="mappo"), resumed)
        advance(resumed, 2)
        for name, value in whole.policy.state_dict().items():
            assert torch.equal(value, resumed.policy.state_dict()[name]), name
        for name, value in whole.update.losses.state_dict().items():
            assert torch.equal(value, resumed.update.losses.state_dict()[name]), name


def test_a_resumed_run_keeps_the_opponent_that_it_began_with(trained: Path, kind: str, tmp_path: Path) -> None:
    """Its weights stand in the checkpoint, so that it does not matter if the opponent's own run went on."""
    cfg = config(kind, opponents={"agent": RunOpponent(str(trained))}, total_frames=120)
    path = run(tmp_path / "run", cfg)
    first = group_weights(load(path).parts, "agent")
    further = read_config(trained)
    further.total_frames = 180
    resume(further, trained)
    assert not same(first, group_weights(load(trained).parts, "agent"))
    assert same(first, group_weights(load(path).parts, "agent"))


def test_a_group_goes_on_from_an_earlier_run(trained: Path, kind: str) -> None:
    parts = config(kind, initial={"agent": str(trained)}).build()
    earlier = load(trained).parts
    assert same(group_weights(parts, "agent"), group_weights(earlier, "agent"))
    assert not same(group_weights(parts, "adversary"), group_weights(earlier, "adversary"))
    before = group_weights(parts, "agent")
    assert list(parts.update.losses) == ["adversary", "agent"]
    advance(parts, 1)
    assert not same(before, group_weights(parts, "agent"))


def test_q_learners_against_opponents_and_targets_of_a_loaded_group(kind: str, tmp_path: Path) -> None:
    earlier = run(tmp_path / "earlier", q_config(kind, total_frames=60, epsilon_frames=60))
    cfg = q_config(kind, mixer=VDNMixerConfig(), opponents={"agent": RunOpponent(str(earlier), sampled=True)})
    parts = dataclasses.replace(cfg, initial={"adversary": str(earlier)}).build()
    before = group_weights(parts, "agent")
    loss = parts.update.losses["team"]
    assert list(loss.actors) == ["adversary"]
    online, targets = loss.online_networks().parameters(), loss.target_networks.parameters()
    assert same(list(online), list(targets))
    assert same(group_weights(parts, "adversary"), group_weights(load(earlier).parts, "adversary"))
    # Exploration begins as configured for the learner; the opponent keeps the one that it was left with.
    assert parts.policy.actors["adversary"].epsilon.item() == 1.0
    assert parts.policy.actors["agent"].actor.epsilon.item() == pytest.approx(0.05)
    advance(parts, 3)
    assert same(before, group_weights(parts, "agent"))
    assert not same(group_weights(load(earlier).parts, "adversary"), group_weights(parts, "adversary"))


def test_the_teams_reward_is_the_learners_alone() -> None:
    parts = q_config(mixer=VDNMixerConfig(), opponents={"agent": RandomOpponent()}).build()
    batch = next(iter(parts.collector))
    batch["next", "adversary", "reward"].copy_(torch.tensor([1.0, 2.0, 6.0]).unsqueeze(-1).expand(6, 10, 3, 1))
    batch["next", "agent", "reward"].fill_(-100.0)
    assert torch.equal(parts.prepare(batch)["next", "reward"], torch.full((6, 10, 1), 3.0))


def test_scripted_predators_play_as_the_chase_does(tmp_path: Path) -> None:
    path = run(tmp_path / "run", config(opponents={"adversary": GreedyChaseOpponent()}, total_frames=60))
    loaded = load(path)
    assert list(loaded.policy.learners) == ["agent"]
    assert loaded.parts.policy.actors["adversary"].first == 12
    data = loaded.policy(loaded.env.reset())
    towards = data["adversary", "observation"][..., 12:16].unflatten(-1, (2, 2))
    nearest = towards.gather(-2, towards.norm(dim=-1).argmin(-1)[..., None, None].expand(6, 3, 1, 2)).squeeze(-2)
    cosine = torch.cosine_similarity(data["adversary", "action"], nearest, -1)
    assert torch.allclose(cosine, torch.ones(6, 3), atol=1e-5)


def test_evaluation_has_the_opponents_too(trained: Path, kind: str) -> None:
    task = tag(params={"shape_agent_rew": True, "shape_adversary_rew": True})
    parts = config(kind, task=task, opponents={"agent": RunOpponent(str(trained))}).build()
    theirs = load(trained).policy
    theirs.actors["adversary"].load_state_dict(parts.policy.actors["adversary"].state_dict())
    at_random = config(kind, task=task, opponents={"agent": RandomOpponent()}).build().policy
    found, expected, other = (
        evaluate(parts.collector.env, policy, ["adversary", "agent"], episodes=12, seed=3).by_group
        for policy in (parts.policy, theirs, at_random)
    )
    assert found["adversary"].shape == (12, 3)
    for group in ("adversary", "agent"):
        torch.testing.assert_close(found[group], expected[group])
        assert not torch.isclose(found[group], other[group]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"opponents": {"agnet": RandomOpponent()}},
            r"opponents\.agnet: no such group; vmas/simple_tag has adversary, ",
        ),
        ({"initial": {"agnet": "RUN"}}, r"initial\.agnet: no such group"),
        ({"opponents": {"agent": RandomOpponent(), "adversary": RandomOpponent()}}, "nothing is left to train"),
        ({"opponents": {"agent": RandomOpponent()}, "initial": {"agent": "RUN"}}, "leave one of them out"),
        ({"opponents": {"agent": GreedyChaseOpponent()}}, "expected the 22 features of a predator"),
        ({"opponents": {"agent": RunOpponent("nowhere")}}, "nowhere: there is no such directory"),
        (
            {"opponents": {"agent": RunOpponent("RUN")}, "task": tag(n_prey=3)},
            "expected .* same network and task.params",
        ),
        ({"initial": {"agent": "RUN"}, "actor": network("mlp", share_params=False)}, "does not fit group 'agent': "),
        ({"opponents": {"agent": RunOpponent("RUN")}, "task": tag(False)}, "trained with task.continuous_actions=true"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    earlier = tmp_path_factory.getbasetemp() / "earlier"
    if not earlier.exists():
        run(earlier, config(total_frames=60))
    opponents = {
        name: RunOpponent(str(earlier)) if given == RunOpponent("RUN") else given
        for name, given in options.get("opponents", {}).items()
    }
    initial = {name: str(earlier) for name in options.get("initial", {})}
    with pytest.raises(UserError, match=message) as caught:
        config(**{**options, "opponents": opponents, "initial": initial}).build()
    assert "\n" not in str(caught.value)


def test_a_run_of_another_task_and_an_opponent_that_never_learned_are_refused(tmp_path: Path) -> None:
    other = run(tmp_path / "other", small_config(total_frames=60))
    with pytest.raises(UserError, match="is a run of vmas/navigation, this is vmas/simple_tag"):
        config(opponents={"agent": RunOpponent(str(other))}).build()
    scripted = run(tmp_path / "scripted", config(total_frames=60, opponents={"agent": RandomOpponent()}))
    with pytest.raises(UserError, match="give the run that trained it"):
        config(initial={"agent": str(scripted)}).build()


def test_an_opponents_opponent(trained: Path, tmp_path: Path) -> None:
    """A group that was frozen in the run it is taken from is the one of the run before."""
    second = run(tmp_path / "second", config(opponents={"agent": RunOpponent(str(trained))}, total_frames=60))
    parts = config(opponents={"agent": RunOpponent(str(second))}).build()
    assert same(group_weights(parts, "agent"), group_weights(load(second).parts, "agent"))


def test_one_mixer_for_groups_that_compete_is_refused() -> None:
    with pytest.raises(UserError, match=r"adversary, agent compete .* use mixer=none, or .* opponents\.agent=random"):
        q_config(mixer=VDNMixerConfig()).build()
