"""A part in another part's place is an error that names the fix."""

from __future__ import annotations

from typing import Any

import pytest

from ctde_kit.errors import UserError
from ctde_kit.modules import AttentionCritic, MultiAgentDeterministicActor, RandomOrderCritic, own_observation
from ctde_kit.modules import action_value_critic as critic_of_actions
from ctde_kit.modules import value_critic as critic_of_states
from ctde_kit.objectives import COMAActorLoss, MADDPGLoss, MAPPOLoss, QMixLoss
from ctde_kit.recipes.commands.main import main
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_actor, make_network, make_q_actor

GROUP = group_spec("wolves", 3)
TEAM = TeamSpec((GROUP,))
STATES: dict[str, Any] = {
    "value_critic": lambda: critic_of_states(TEAM, GROUP, make_network(False)),
    "random": lambda: RandomOrderCritic(TEAM, critic_of_states(TEAM, GROUP, make_network(False))),
    "attention": lambda: AttentionCritic(TEAM, GROUP, make_network(False)),
}


@pytest.mark.parametrize("critic", STATES)
def test_a_critic_of_states_is_no_mixer_and_no_critic_of_actions(critic: str) -> None:
    with pytest.raises(UserError, match=r"a critic, which mixes nothing; .* use MAPPOLoss or MADDPGLoss"):
        QMixLoss({"wolves": make_q_actor(GROUP)}, STATES[critic](), gamma=0.9)
    network = make_network(False)(GROUP.observation_dim, GROUP.action.vector_dim, 3)
    actor = MultiAgentDeterministicActor(GROUP, own_observation(GROUP), network)
    with pytest.raises(UserError, match=r"'wolves' writes 'state_value', .* such as action_value_critic"):
        MADDPGLoss({"wolves": actor}, {"wolves": STATES[critic]()}, gamma=0.9)


@pytest.mark.parametrize("loss", [MAPPOLoss, COMAActorLoss])
def test_an_actor_and_a_critic_in_each_others_places(loss: Any) -> None:
    critic = critic_of_states(TEAM, GROUP, make_network(False))
    with pytest.raises(UserError, match=rf"{loss.__name__}: actor is a \w+, which gives no distribution"):
        loss(critic, make_actor(GROUP))


def test_a_critic_of_actions_is_none_of_states() -> None:
    with pytest.raises(UserError, match="give a critic of states, such as value_critic"):
        MAPPOLoss(make_actor(GROUP), critic_of_actions(TEAM, GROUP, make_network(False)), keys=GROUP.keys)


@pytest.mark.parametrize("argument", ["critic=centralized", "network@critic.network=gru", "critic.heads=one"])
@pytest.mark.parametrize("algorithm", ["qmix", "pqn"])
def test_a_q_learning_command_has_no_critic(
    algorithm: str, argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [f"ctde-{algorithm}", "total_frames=100", argument])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith(f"ctde-{algorithm}: error: {argument}: ctde-{algorithm} has no critic")
    assert "leave it out and choose a mixer, or run ctde-mappo" in printed
