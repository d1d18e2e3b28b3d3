"""Actors and critics with a channel in every recipe, and the command line that chooses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentBiCNet, MultiAgentCommNet, MultiAgentTarMAC
from ctde_kit.recipes import (
    BiCNetNetwork,
    CommNetNetwork,
    CueTask,
    PettingZooTask,
    QMixerConfig,
    RandomOpponent,
    RunOpponent,
    TarMACNetwork,
    ValueCriticConfig,
    VmasTask,
)
from ctde_kit.training import iterate, load_parts, read_checkpoint, save_checkpoint
from tests.recipes.command_line import composed
from tests.recipes.resuming import advance, tensors, weights
from tests.recipes.small import CHANNELS, network, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_q import small_pqn_config, small_q_config
from tests.recipes.test_opponents import run


def own(kind: str) -> ValueCriticConfig:
    """A critic with a channel sees each agent's own data."""
    return ValueCriticConfig(sees="observation", network=network(kind))


def length(kind: str) -> int | None:
    return 5 if kind.endswith("gru") else None


def form(kind: str) -> str:
    return "sequences" if kind.endswith("gru") else "transitions"


RECIPES: dict[str, Any] = {
    "mappo": lambda kind: small_config(actor=network(kind), sequence_length=length(kind)).build(),
    "ippo": lambda kind: small_config(
        actor=network(kind), critic=own(kind), sequence_length=length(kind), algorithm="ippo"
    ).build(),
    "qmix": lambda kind: small_q_config(form=form(kind), actor=network(kind), last_action=True).build(),
    "pqn": lambda kind: small_pqn_config(actor=network(kind, layer_norm=True)).build(),
    "maddpg": lambda kind: small_maddpg_config(form=form(kind), actor=network(kind), critic=own(kind)).build(),
    "facmac": lambda kind: small_maddpg_config(
        form=form(kind),
        continuous=False,
        actor=network(kind),
        critic=own(kind),
        mixer=QMixerConfig(embed_dim=5, hypernet_cells=[6]),
        algorithm="facmac",
    ).build(),
}
KINDS = [*CHANNELS, "bicnet gru"]


def every_pair() -> Iterator[Any]:
    """Each kind with each recipe; by default each kind with MAPPO, and each recipe with one kind."""
    for number, recipe in enumerate(RECIPES):
        for kind in KINDS:
            is_default = recipe == "mappo" or kind == KINDS[number % len(KINDS)]
            yield pytest.param(kind, recipe, marks=[] if is_default else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "recipe"), list(every_pair()))
def test_every_channel_trains_in_every_recipe(kind: str, recipe: str) -> None:
    parts = RECIPES[recipe](kind)
    before = weights(parts)
    iterations = iterate(parts)
    metrics = [next(iterations).metrics for _ in range(1 if recipe in ("mappo", "ippo", "pqn") else 2)]
    assert metrics[-1]["grad_norm"] > 0
    assert not torch.equal(weights(parts), before)
    assert not parts.policy.decentralized
    with pytest.raises(UserError, match="hears other agents' data"):
        parts.policy.for_agent("agents", 0)


CUE = {"n_envs": 6, "max_steps": 7, "params": {"n_agents": 3, "n_goals": 4}}
ON_CUE: dict[str, Any] = {
    "cue": lambda: small_config(actor=network("tarmac"), task=CueTask(**CUE)).build(),
    "cue of two groups": lambda: small_q_config(task=CueTask(two_groups=True, **CUE)).build(),
}


@pytest.mark.parametrize(
    "recipe", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("mappo", "qmix", "maddpg")), *ON_CUE]
)
def test_resumed_run_equals_the_run_that_never_stopped(recipe: str, tmp_path: Path) -> None:
    build = ON_CUE.get(recipe, lambda: RECIPES[recipe]("bicnet gru"))
    uninterrupted, stopped = advance(build(), 3), advance(build(), 2)
    save_checkpoint(tmp_path / "c.pt", stopped, algorithm=recipe, frames=120)
    torch.manual_seed(99)
    resumed = advance(build(), 1)
    load_parts(read_checkpoint(tmp_path / "c.pt", algorithm=recipe), resumed)
    assert torch.equal(weights(advance(resumed, 1)), weights(uninterrupted))
    env, expected = (tensors(parts.collector.state_dict()) for parts in (resumed, uninterrupted))
    assert all(map(torch.equal, env, expected))


ACROSS: dict[str, Any] = {
    "mappo": lambda kind, **options: small_config(
        actor=network(kind, across_groups=True),
        sequence_length=length(kind),
        **{"task": CueTask(two_groups=True, **CUE), **options},
    ).build(),
    "qmix": lambda kind: small_q_config(
        form=form(kind), actor=network(kind, across_groups=True), task=CueTask(two_groups=True, **CUE)
    ).build(),
    "maddpg": lambda kind: small_maddpg_config(
        form=form(kind),
        continuous=False,
        actor=network(kind, across_groups=True),
        task=CueTask(two_groups=True, **CUE),
    ).build(),
}


@pytest.mark.parametrize("recipe", ACROSS)
@pytest.mark.parametrize("kind", ["bicnet", "commnet gru"])
def test_groups_talk_in_every_recipe_and_go_on_after_a_stop(kind: str, recipe: str, tmp_path: Path) -> None:
    stopped = advance(ACROSS[recipe](kind), 1)
    speaker, listener = (actor.agent_network.network for actor in stopped.policy.actors.values())
    assert speaker.team is listener.team
    assert not stopped.policy.decentralized
    save_checkpoint(tmp_path / "c.pt", stopped, algorithm=recipe, frames=60)
    before, expected = weights(stopped), weights(advance(stopped, 1))
    resumed = ACROSS[recipe](kind)
    load_parts(read_checkpoint(tmp_path / "c.pt", algorithm=recipe), resumed)
    assert torch.equal(weights(advance(resumed, 1)), expected)
    assert not torch.equal(before, expected)


def test_groups_with_continuous_actions_and_of_several_sizes_talk() -> None:
    tag = VmasTask(name="vmas/simple_tag", n_envs=6, max_steps=7, groups_compete=False)
    parts = advance(ACROSS["mappo"]("commnet", task=tag), 1)
    assert {name: actor.group.observation_dim for name, actor in parts.policy.actors.items()} == {
        "adversary": 16,
        "agent": 14,
    }
    with pytest.raises(UserError, match=r"group 'agent' does not learn.*leave opponents.agent or across_groups out"):
        ACROSS["mappo"]("commnet", task=tag, opponents={"agent": RandomOpponent()})


def test_a_frozen_group_has_nothing_to_say_and_stays_as_it_is(tmp_path: Path) -> None:
    cue = {"task": CueTask(two_groups=True, **CUE)}
    run_directory = run(tmp_path / "run", small_config(actor=network("commnet", across_groups=True), **cue))
    for group in ("speaker", "listener"):
        frozen = {"opponents": {group: RunOpponent(str(run_directory))}, **cue}
        with pytest.raises(UserError, match=rf"group '{group}' does not learn.*leave opponents.{group} or"):
            small_config(actor=network("commnet", across_groups=True), **frozen).build()
        # Learners that do not talk play with a frozen group that heard theirs.
        parts = small_config(**frozen).build()
        before = [value.clone() for value in parts.policy.actors[group].state_dict().values()]
        assert group not in advance(parts, 1).policy.learners
        assert all(map(torch.equal, before, parts.policy.actors[group].state_dict().values()))
        across = small_config(actor=network("commnet", across_groups=True), initial={group: str(run_directory)}, **cue)
        with pytest.raises(UserError, match=rf"initial.{group}: with actor.across_groups=true all groups are one"):
            across.build()


def test_groups_whose_agents_die_talk() -> None:
    task = PettingZooTask(
        name="tag",
        env="mpe2/simple_tag_v3",
        n_envs=4,
        n_workers=1,
        max_steps=7,
        groups_compete=False,
        params={"max_cycles": 7},
    )
    parts = small_q_config(actor=network("tarmac"), task=task).build()
    assert sum(iteration.metrics["num_updates"] for iteration in iterate(parts)) == 16
    parts.collector.shutdown()


def compose(recipe: str, *overrides: str) -> Any:
    return composed(recipe, *overrides)


def test_the_command_line_chooses_channels() -> None:
    sizes = ["actor.hidden_size=6", "actor.num_cells=[8]", "actor.encoder=gru"]
    config = compose("mappo", "network@actor=bicnet", "actor.cell=lstm", *sizes)
    assert config.actor == BiCNetNetwork(encoder="gru", hidden_size=6, num_cells=[8], cell="lstm")
    built = config.actor.build(5, 2, 3)
    assert isinstance(built, MultiAgentBiCNet)
    assert built.recurrent
    assert built.channel.cell == "lstm"
    config = compose("qmix", "network@actor=tarmac", "actor.rounds=3", "actor.signature_size=4")
    assert config.actor == TarMACNetwork(rounds=3, signature_size=4, activation="relu")
    assert isinstance(config.actor.build(5, 2, 3), MultiAgentTarMAC)
    config = compose("maddpg", "critic=decentralized", "network@critic.network=commnet", "critic.network.rounds=1")
    assert config.critic.network == CommNetNetwork(rounds=1, activation="relu")
    assert isinstance(config.critic.network.build(5, 2, 3), MultiAgentCommNet)
    assert compose("mappo", "task=communication/cue", "task.max_steps=3").task == CueTask(max_steps=3)
    assert compose("qmix", "task=communication/cue_groups").task.build(seed=0, device="cpu").two_groups


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CueTask(params={"n_cues": 3}), "task.params.n_cues: communication/cue never reads it"),
        (lambda: CueTask(params={"n_goals": 1}).build(seed=0, device="cpu"), "n_goals=1"),
        (lambda: BiCNetNetwork(encoder="cnn"), "encoder=cnn: expected one of mlp, gru"),
        (lambda: BiCNetNetwork(cell="rnn"), "cell=rnn: expected one of gru, lstm"),
        (lambda: BiCNetNetwork(hidden_size=7).build(5, 2, 3), "hidden_size=7: expected an even number"),
        (lambda: CommNetNetwork(rounds=0), "rounds=0"),
        (lambda: TarMACNetwork(signature_size=0), "signature_size=0"),
        (lambda: TarMACNetwork(num_cells=[8, 0]), "num_cells[1]=0"),
        (lambda: TarMACNetwork(activation="sin"), "activation=sin"),
        (
            lambda: small_config(critic=ValueCriticConfig(network=network("commnet", across_groups=True))).build(),
            "across_groups=true: it is for actors alone",
        ),
        (
            lambda: small_config(critic=ValueCriticConfig(network=network("commnet"))).build(),
            "agents have nothing to tell each other; use each agent's own data (sees='observation'",
        ),
        (
            lambda: small_maddpg_config(actor=network("bicnet"), ensemble_size=2).build(),
            "give networks without a channel",
        ),
    ],
)
def test_mistakes_are_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
