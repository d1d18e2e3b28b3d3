"""A compiled VMAS step: the plain one's numbers, and the same state to save, load and look at."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torchrl.envs import check_env_specs
from vmas.simulator.scenario import BaseScenario

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.envs.vmas.world_state import WorldState
from ctde_kit.graph import TraceError, agreement
from tests.envs.scenarios import Branching, Counting, Drift, Ends

N_ENVS, MAX_STEPS, STEPS = 5, 6, 30


def make(scenario: BaseScenario | str | None = None, **options: Any) -> VmasEnv:
    options = {"num_envs": N_ENVS, "max_steps": MAX_STEPS, "seed": 2, **options}
    return VmasEnv(scenario or Drift(), **options)


def started(**options: Any) -> tuple[VmasEnv, TensorDictBase]:
    """An env whose episodes end at different steps."""
    env = make(**options)
    carrier = env.reset()
    env.elapsed.copy_(torch.arange(N_ENVS).unsqueeze(-1))
    return env, carrier


def actions_of(env: VmasEnv, steps: int = STEPS) -> list[TensorDictBase]:
    torch.manual_seed(4)
    return [env.rand_action() for _ in range(steps)]


def assert_close(found: TensorDictBase, expected: TensorDictBase) -> None:
    found_leaves, expected_leaves = dict(found.items(True, True)), dict(expected.items(True, True))
    assert found_leaves.keys() == expected_leaves.keys()
    for key, value in expected_leaves.items():
        torch.testing.assert_close(found_leaves[key], value, rtol=1e-5, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


def go_on(env: VmasEnv, carrier: TensorDictBase, actions: list[TensorDictBase]) -> tuple[TensorDictBase, Any]:
    """Steps ``[n_envs, T]`` with partial resets among them, and what follows."""
    steps = []
    for action in actions:
        step, carrier = env.step_and_maybe_reset(carrier.copy().update(action))
        steps.append(step)
    return torch.stack(steps, 1), carrier


@pytest.fixture(scope="module")
def pair() -> tuple[VmasEnv, TensorDictBase, VmasEnv, TensorDictBase, list[TensorDictBase]]:
    """A compiled and a plain env with noise in their rewards, after the same ``STEPS`` steps."""
    options = {"scenario_kwargs": {"noise": 0.1}}
    (compiled, first), (plain, second) = started(compile_step=True, **options), started(**options)
    actions = actions_of(plain)
    found, first = go_on(compiled, first, actions)
    expected, second = go_on(plain, second, actions)
    return compiled, torch.stack([found, expected]), plain, first, second


def test_steps_equal_the_plain_ones_with_resets_and_noise(pair: Any) -> None:
    compiled, batches = pair[:2]
    assert compiled.compile_step
    assert compiled._compiled is not None
    found, expected = batches.unbind(0)
    assert_close(found, expected)
    done = expected["next", "done"][..., 0]
    assert (done.sum(1) >= STEPS // MAX_STEPS).all()
    assert not done.all(0).any(), "resets were partial"


def test_the_world_shows_the_present_state(pair: Any) -> None:
    compiled, _, plain, *_ = pair
    states = [WorldState.read(env.simulation.world).values for env in (compiled, plain)]
    # VMAS builds some constants when they are first read.
    assert all(path.endswith("_multiplier_tensor") for path in states[0].keys() ^ states[1].keys())
    for path, value in states[1].items():
        if path not in states[0]:
            continue
        torch.testing.assert_close(
            states[0][path], value, rtol=1e-5, atol=1e-5, msg=lambda m, path=path: f"{path}: {m}"
        )
    before = compiled.world.agents[0].state.pos.clone()
    saved = copy.deepcopy(compiled.state_dict())
    following = compiled.step(compiled.rand_action(pair[3].copy()))
    position = compiled.world.agents[0].state.pos
    assert not torch.equal(position, before)
    assert torch.equal(position, following["next", "agents", "observation"][:, 0, :2])
    compiled.load_state_dict(saved)
    assert torch.equal(compiled.world.agents[0].state.pos, before)


@pytest.mark.parametrize("source", [0, 2], ids=["compiled to plain", "plain to compiled"])
def test_states_pass_between_compiled_and_plain_envs(pair: Any, source: int) -> None:
    compiled, _, plain, *carriers = pair
    saved = copy.deepcopy([env.state_dict() for env in (compiled, plain)])
    carrier = carriers[0 if source == 0 else 1]
    state = copy.deepcopy(pair[source].state_dict())
    assert (state["elapsed"] > 0).any()
    actions = actions_of(plain)
    batches = []
    for env in (compiled, plain):
        go_on(env, carriers[0], actions[:4])  # elsewhere
        env.load_state_dict(copy.deepcopy(state))
        batches.append(go_on(env, carrier, actions)[0])
    assert_close(*batches)
    for env, own in zip((compiled, plain), saved, strict=True):
        env.load_state_dict(own)


def test_specs_hold(pair: Any) -> None:
    compiled = pair[0]
    saved = copy.deepcopy(compiled.state_dict())
    check_env_specs(compiled)
    assert compiled.compile_step
    compiled.load_state_dict(saved)


def test_the_state_is_read_and_written() -> None:
    env, carrier = started()
    actions = actions_of(env)
    _, carrier = go_on(env, carrier, actions[:3])
    state, stream = env.tensor_state.read().clone(), copy.deepcopy(env.random_stream.state_dict())
    first, _ = go_on(env, carrier, actions[:10])
    moved = env.tensor_state.read()
    for key, value in state.items(True, True):
        assert moved[key].shape == value.shape
    assert not torch.equal(moved["elapsed"], state["elapsed"])
    env.tensor_state.write(state.clone())
    env.random_stream.load_state_dict(stream)
    assert_close(env.tensor_state.read(), state)
    second, _ = go_on(env, carrier, actions[:10])
    assert torch.equal(first["next", "agents", "observation"], second["next", "agents", "observation"])
    assert torch.equal(first["next", "agents", "reward"], second["next", "agents", "reward"])


def test_drawing_initial_states_leaves_the_env_where_it_is() -> None:
    env, carrier = started()
    actions = actions_of(env)
    _, carrier = go_on(env, carrier, actions[:3])
    before = env.tensor_state.read().clone()
    drawn = env.draw_initial_states(2 * N_ENVS + 1)
    assert drawn.batch_size == (3 * N_ENVS,)
    assert not drawn["elapsed"].any()
    observations = drawn["last", "agents", "observation"]
    assert len(observations.flatten(1).unique(dim=0)) == 3 * N_ENVS
    after = env.tensor_state.read()
    for key, value in before.items(True, True):
        assert torch.equal(after[key], value), key


@pytest.mark.parametrize("scenario", ["simple_spread"])
def test_discrete_actions_are_traced(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "compile_graph", lambda graph, **_: graph)
    envs = [make(scenario, continuous_actions=False, compile_step=compile) for compile in (True, False)]
    carriers = [env.reset() for env in envs]
    actions = actions_of(envs[1], 2 * MAX_STEPS)
    assert actions[0]["agents", "action"].dtype == torch.long
    batches = [go_on(env, carrier, actions)[0] for env, carrier in zip(envs, carriers, strict=True)]
    assert envs[0].compile_step
    assert_close(*batches)


@pytest.mark.parametrize(
    ("gaps", "pushed"),
    [pytest.param([0.003] * 5, False, marks=pytest.mark.slow), ([0.003, 0.003, -0.01, 0.1, 0.003], True)],
    ids=["none near", "one near"],
)
def test_bodies_that_vmas_passes_over_push_in_no_env(
    gaps: list[float], pushed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "compile_graph", lambda graph, **_: graph)
    envs = [make(Ends(), scenario_kwargs={"gaps": gaps}, compile_step=compile) for compile in (True, False)]
    results = [env.step(env.full_action_spec.zero().update(env.reset())) for env in envs]
    assert envs[0].compile_step
    assert_close(*results)
    # Nearer than lines may be, and yet nothing happens unless the circles around them meet in some env.
    assert bool((results[1]["next", "agents", "reward"][0] != 0).all()) == pushed
    assert not results[1]["next", "agents", "reward"][3].any()


@pytest.mark.parametrize(
    ("scenario", "reason"), [(Counting, "keeps changing state in Python"), (Branching, "branches on a tensor")]
)
def test_what_cannot_be_compiled_says_so_and_steps_plainly(
    scenario: type[BaseScenario], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        (env, first), (plain, second) = started(scenario=scenario(), compile_step=True), started(scenario=scenario())
        actions = actions_of(plain, MAX_STEPS - N_ENVS)
        batches = [go_on(env, first, actions)[0], go_on(plain, second, actions)[0]]
    (record,) = caplog.records
    assert f"the step of {scenario.__name__} is not compiled: " in record.getMessage()
    assert reason in record.getMessage()
    assert not env.compile_step
    assert_close(*batches)


def test_a_state_that_tensors_do_not_hold_is_refused() -> None:
    env = make(Counting())
    env.reset()
    with pytest.raises(TraceError, match="keeps changing state in Python"):
        env.tensor_state  # noqa: B018
