"""Critics that another learner takes over: all of them, nothing else, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import QMixerConfig, RecipeConfig, ValueCriticConfig, VmasTask
from ctde_kit.training import Parts, group_critics
from ctde_kit.training.group_critics import Moments
from tests.conftest import graphs_as_traced
from tests.recipes.resuming import advance
from tests.recipes.small import network, small_config
from tests.recipes.small_coma import small_coma_config
from tests.recipes.small_happo import small_happo_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_masac import small_masac_config
from tests.recipes.small_q import small_q_config

FACMAC: dict[str, Any] = {
    "algorithm": "facmac",
    "critic": ValueCriticConfig(sees="observation", network=network("mlp")),
    "mixer": QMixerConfig(),
}
CONFIGS: dict[str, Callable[..., RecipeConfig]] = {
    "maddpg": small_maddpg_config,
    "matd3": lambda **options: small_maddpg_config(twin_critics=True, **options),
    "facmac": lambda **options: small_maddpg_config(**FACMAC, **options),
    "masac": small_masac_config,
    "mappo": small_config,
    "happo": small_happo_config,
    "coma": small_coma_config,
}
MARKS = ("critic", "mixer", "value_norm")


def learner(recipe: str, seed: int, iterations: int = 1) -> Parts:
    return advance(CONFIGS[recipe](seed=seed, compile="off").build(), iterations)


def losses(parts: Parts) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in parts.update.losses.state_dict().items()}


def take(ours: Parts, theirs: Parts, moments: Moments) -> None:
    for group, critics in group_critics(theirs.update).items():
        group_critics(ours.update)[group].take(critics.state(moments=moments == "copy"), moments)


@pytest.mark.parametrize("recipe", CONFIGS)
def test_critics_change_hands_with_or_without_what_an_optimizer_remembers(recipe: str) -> None:
    ours, theirs = learner(recipe, 0), learner(recipe, 1)
    check_networks_change_hands(ours, theirs)
    mine, other, of_actors = moments_of(ours), moments_of(theirs), moments_of(ours, critics=False)
    assert of_actors
    assert any(not torch.equal(now, then) for now, then in zip(mine, other, strict=True))
    expected = {"keep": mine, "copy": other, "reset": [torch.zeros_like(value) for value in mine]}
    for moments, wanted in expected.items():
        take(ours, theirs, moments)
        assert all(torch.equal(now, then) for now, then in zip(moments_of(ours), wanted, strict=True)), moments
        # What an optimizer remembers of actors stays.
        assert all(map(torch.equal, moments_of(ours, critics=False), of_actors))


def check_networks_change_hands(ours: Parts, theirs: Parts) -> None:
    """All networks of critics become the other's, and no other network moves."""
    before, other = losses(ours), losses(theirs)
    take(ours, theirs, "keep")
    after = losses(ours)
    of_critics = {name for name in before if any(mark in name for mark in MARKS)}
    assert of_critics
    for name in before:
        assert torch.equal(after[name], (other if name in of_critics else before)[name]), name
    moved = [name for name in before if not torch.equal(after[name], before[name])]
    assert {kind(name) for name in moved} == {kind(name) for name in of_critics}
    assert all(torch.equal(value, other[name]) for name, value in losses(theirs).items())


def test_a_state_is_a_copy() -> None:
    critics = group_critics(learner("maddpg", 0).update)["agents"]
    state = critics.state(moments=True)
    values = [*state.networks.values(), *(value for of in state.moments.values() for value in of.values())]
    before = [value.clone() for value in values]
    critics.take(group_critics(learner("maddpg", 1).update)["agents"].state(moments=True), "copy")
    assert all(torch.equal(value, then) for value, then in zip(values, before, strict=True))


def kind(name: str) -> str:
    """Which network an entry is of: some entries are constants, but of each network one moves."""
    return ".".join(part for part in name.split(".") if any(mark in part for mark in MARKS))


def moments_of(parts: Parts, critics: bool = True) -> list[torch.Tensor]:
    """What optimizers remember of critics, or of everything else."""
    parameters = {id(p) for one in group_critics(parts.update).values() for p in one.modules.parameters()}
    return [
        value.clone()
        for step in parts.update.gradient_steps
        for parameter, state in step.optimizer.state.items()
        if (id(parameter) in parameters) is critics
        for value in state.values()
    ]


@pytest.mark.slow
def test_a_compiled_update_sees_the_new_critics_without_compiling_again() -> None:
    compiled, eager = (small_maddpg_config(compile="off").build() for _ in range(2))
    compiled.update.update.compile = True
    theirs = learner("maddpg", 1)
    minibatch = next(theirs.buffer.samples(1))

    def step() -> None:
        for parts in (compiled, eager):
            parts.update(minibatch.copy())
        for name, value in losses(eager).items():
            assert torch.allclose(losses(compiled)[name], value, atol=1e-6), name

    with graphs_as_traced():
        step()
        step()
        graphs = dict(compiled.update.update._compiled)
        for moments in ("copy", "reset"):
            for parts in (compiled, eager):
                take(parts, theirs, moments)
            step()
    assert len(graphs) == 1
    assert compiled.update.update._compiled == graphs


def test_groups_are_apart() -> None:
    task = VmasTask("vmas/simple_tag", n_envs=6, max_steps=7, groups_compete=True)
    ours, theirs = (advance(small_maddpg_config(task=task, seed=seed, compile="off").build(), 1) for seed in (0, 1))
    before, other = losses(ours), losses(theirs)
    group_critics(ours.update)["adversary"].take(group_critics(theirs.update)["adversary"].state(), "keep")
    for name, value in losses(ours).items():
        is_theirs = "critic" in name and "adversary" in name
        assert torch.equal(value, (other if is_theirs else before)[name]), name


def test_q_learning_has_no_critics() -> None:
    with pytest.raises(UserError, match="losses with critics"):
        group_critics(small_q_config().build().update)
