"""The latent that a team shares while training: who reads it, when it is drawn, and who acts without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.modules import FrozenActor, TeamLatent, TeamPolicy
from ctde_kit.modules.export.greedy_step import GreedyStep
from ctde_kit.specs import TeamSpec
from ctde_kit.testing import RuleBroken, check_policy
from tests.contracts.fakes import HIDDEN, KINDS, group_spec, make_actor, observe, with_hidden

RANDOM: Any = ExplorationType.RANDOM
GREEDY: Any = ExplorationType.DETERMINISTIC
N_ENVS, SIZE = 6, 4


def team_of(kind: str = "continuous") -> TeamSpec:
    return TeamSpec((group_spec("wolves", 3, kind), group_spec("sheep", 2, kind, observation_dim=8)))


def parameters(written: TensorDictBase, group: str) -> torch.Tensor:
    """What the distribution of a group's actions is made of."""
    name = "logits" if (group, "logits") in written.keys(True) else "loc"
    return written[group, name]


def acts(policy: Any, data: TensorDictBase, kind: Any = GREEDY) -> TensorDictBase:
    with torch.no_grad(), set_exploration_type(kind):
        return policy(data.copy())


def test_one_draw_per_env_and_step_serves_all_groups() -> None:
    team = team_of()
    policy = TeamPolicy({group.name: make_actor(group, latent_dim=SIZE) for group in team}, TeamLatent(SIZE))
    data = observe(team, N_ENVS)
    data["wolves", "observation"][1] = data["wolves", "observation"][0]
    first, second = acts(policy, data, RANDOM), acts(policy, data, RANDOM)
    assert first["latent"].shape == (N_ENVS, SIZE)
    assert not torch.equal(first["latent"], second["latent"])
    assert not torch.allclose(first["wolves", "loc"][0], first["wolves", "loc"][1])  # by their latents alone
    for group in team:  # each group's outputs are those with this very latent
        alone = acts(policy.actors[group.name], data.copy().set("latent", first["latent"]))
        assert torch.equal(alone[group.name, "loc"], first[group.name, "loc"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_without_a_draw_the_latent_is_its_mean(kind: str, recurrent: bool) -> None:
    team = team_of(kind)
    actors = {group.name: make_actor(group, recurrent, agent_id=True, latent_dim=SIZE) for group in team}
    policy = TeamPolicy(actors, TeamLatent(SIZE))
    data = observe(team, N_ENVS).set("is_init", torch.ones(N_ENVS, 1, dtype=torch.bool))
    with_hidden(data, [actor.agent_network for actor in actors.values()])
    greedy = acts(policy, data)
    assert greedy["latent"].eq(0).all()
    bare = acts(TeamPolicy(actors), data)
    drawn = acts(TeamPolicy(actors), data.copy().set("latent", torch.randn(N_ENVS, SIZE)))
    for group in team:
        assert torch.equal(greedy[group.name, "action"], bare[group.name, "action"])
        assert torch.equal(parameters(greedy, group.name), parameters(bare, group.name))
        assert not torch.allclose(parameters(drawn, group.name), parameters(bare, group.name))


def test_frozen_actors_read_the_mean_beside_those_who_share_a_latent() -> None:
    team = team_of()
    learner, other = (make_actor(group, latent_dim=SIZE) for group in team)
    data = observe(team, N_ENVS)
    policy = TeamPolicy({"wolves": learner, "sheep": FrozenActor(other, RANDOM)}, TeamLatent(SIZE))
    written = acts(policy, data, RANDOM)
    assert written["latent"].ne(0).any()
    torch.testing.assert_close(written["sheep", "loc"], acts(other, data)["sheep", "loc"])
    read = acts(other, written.select("latent", ("sheep", "observation")))["sheep", "loc"]
    assert not torch.allclose(read, written["sheep", "loc"])  # the actor that was copied still reads it


@pytest.mark.parametrize("with_latent", [False, True])
def test_one_agent_alone_does_what_it_does_in_the_team(with_latent: bool) -> None:
    group = group_spec("wolves", 3, "categorical")
    actor = make_actor(group, share=False, agent_id=True, latent_dim=SIZE)
    data = observe(TeamSpec((group,)), N_ENVS)
    if with_latent:
        data["latent"] = torch.randn(N_ENVS, SIZE)
    whole = acts(actor, data)
    for agent in range(3):
        own = TensorDict({("wolves", "observation"): data["wolves", "observation"][:, agent]}, [N_ENVS])
        own = own.set("latent", data["latent"]) if with_latent else own
        assert torch.equal(acts(actor.for_agent(agent), own)["wolves", "action"], whole["wolves", "action"][:, agent])


def test_exported_steps_know_nothing_of_it() -> None:
    group = group_spec("wolves", 3, "continuous")
    actor = make_actor(group, recurrent=True, latent_dim=SIZE)
    step = GreedyStep(actor, agent=1)
    assert [port.name for port in step.inputs] == ["observation", "hidden"]
    observation = torch.randn(N_ENVS, 5)
    data = TensorDict({"is_init": torch.ones(N_ENVS, 1, dtype=torch.bool)}, [N_ENVS])
    data["wolves", "observation"] = observation.unsqueeze(1).expand(-1, 3, -1)
    with_hidden(data, [actor.agent_network])
    with torch.no_grad():
        action, _ = step(observation, torch.zeros(N_ENVS, HIDDEN))
    torch.testing.assert_close(action, acts(actor, data)["wolves", "action"][:, 1])


def test_a_sequence_reads_each_steps_latent() -> None:
    group = group_spec("wolves", 3, "continuous")
    network = make_actor(group, recurrent=True, latent_dim=SIZE).agent_network
    data = observe(TeamSpec((group,)), N_ENVS, 5).set("latent", torch.randn(N_ENVS, 5, SIZE))
    data["is_init"] = torch.zeros(N_ENVS, 5, 1, dtype=torch.bool)
    with_hidden(data, [network])
    with torch.no_grad(), set_recurrent_mode(True):
        whole = network(data.copy())
    hidden = data["wolves", "actor_hidden"][:, 0]
    for t in range(5):
        with torch.no_grad():
            step = network(data[:, t].copy().set(("wolves", "actor_hidden"), hidden))
        torch.testing.assert_close(step["wolves", "loc"], whole["wolves", "loc"][:, t])
        hidden = step["next", "wolves", "actor_hidden"]


def test_saved_policies_hold_nothing_of_it() -> None:
    team = team_of()
    actors = {group.name: make_actor(group, latent_dim=SIZE) for group in team}
    assert TeamPolicy(actors).state_dict().keys() == TeamPolicy(actors, TeamLatent(SIZE)).state_dict().keys()


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="TeamLatent: size=0: expected 1 or more"):
        TeamLatent(0)
    group = group_spec("wolves", 3, "continuous")
    data = observe(TeamSpec((group,)), N_ENVS).set("latent", torch.zeros(N_ENVS, SIZE + 1))
    with pytest.raises(UserError, match=r"key 'latent': expected \[6, 4\], found \[6, 5\]"):
        make_actor(group, latent_dim=SIZE)(data)


@pytest.mark.parametrize("fault", [None, "raises", "draws", "other mean"])
def test_the_doctor_asks_for_an_execution_without_it(fault: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_spec("wolves", 3, "continuous")
    actor = make_actor(group, latent_dim=SIZE)
    data = observe(TeamSpec((group,)), N_ENVS, 5).set("latent", torch.randn(N_ENVS, 5, SIZE))
    data = acts(actor, data, RANDOM)
    if fault is not None:
        forward = actor.agent_network.inputs.forward

        def broken(tensordict: TensorDictBase) -> torch.Tensor:
            missing = "latent" not in tensordict
            if missing and fault == "raises":
                raise KeyError("latent")
            latent = torch.randn(*tensordict.shape, SIZE) if fault == "draws" else torch.ones(*tensordict.shape, SIZE)
            return forward(tensordict.copy().set("latent", latent) if missing else tensordict)

        monkeypatch.setattr(actor.agent_network.inputs, "forward", broken)
    if fault is None:
        found = check_policy(actor, data, group="wolves")["no_shared_latent_in_execution"]
        assert found.figure == "the action without it is the one with its mean"
        return
    words = {"raises": "raises KeyError", "draws": "from draw to draw", "other mean": "off those with its mean"}
    with pytest.raises(RuleBroken, match=words[fault]):
        check_policy(actor, data, group="wolves")
