"""Actors and critics of the kit in TorchRL's own losses and estimators."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDictBase
from torchrl.objectives import ClipPPOLoss, ValueEstimators
from torchrl.objectives.value import GAE

from ctde_kit.keys import GroupKeys
from ctde_kit.modules import value_critic
from ctde_kit.objectives import AdvantageEstimator
from ctde_kit.specs import TeamSpec
from ctde_kit.testing import check_policy_gradient_loss
from tests.contracts.fakes import KINDS, collect, endings, group_spec, make_actor, make_network

KEYS = GroupKeys()


def case(kind: str, share: bool) -> tuple[ClipPPOLoss, TensorDictBase]:
    """A loss of TorchRL over networks of the kit, and a batch with its flags expanded to the agents."""
    team = TeamSpec((group_spec(kind=kind),))
    actor = make_actor(team["agents"], share=share)
    batch, _ = collect(team, {"agents": actor}, *endings())
    for name in ("done", "terminated"):
        flag = batch["next", name].unsqueeze(-2).expand_as(batch["next", "agents", "reward"])
        batch.set(("next", "agents", name), flag)
    loss = ClipPPOLoss(actor, value_critic(team, team["agents"], make_network(False, share)))
    loss.set_keys(
        reward=KEYS.reward,
        done=KEYS.done,
        terminated=KEYS.terminated,
        action=KEYS.action,
        sample_log_prob=KEYS.action_log_prob,
        advantage=KEYS.advantage,
        value_target=KEYS.value_target,
        value=KEYS.state_value,
    )
    return loss, batch


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_clip_ppo_loss_and_gae_take_an_actor_and_a_critic(kind: str, share: bool) -> None:
    loss, batch = case(kind, share)
    loss.make_value_estimator(ValueEstimators.GAE, gamma=0.9, lmbda=0.8)
    report = check_policy_gradient_loss(loss, batch, minibatch=lambda data: data.reshape(-1))
    for rule in ("first_ratio", "gradients_stay_home", "every_parameter_learns", "truncated_advantage_bootstraps"):
        assert report[rule].verdict == "passed"


def test_torchrls_gae_gives_our_advantages() -> None:
    loss, batch = case("categorical", share=True)
    critic = loss.critic_network
    gae = GAE(gamma=0.9, lmbda=0.8, value_network=critic, average_gae=False)
    gae.set_keys(
        reward=KEYS.reward,
        done=KEYS.done,
        terminated=KEYS.terminated,
        advantage=KEYS.advantage,
        value_target=KEYS.value_target,
        value=KEYS.state_value,
    )
    theirs = gae(batch.clone())["agents", "advantage"]
    ours = AdvantageEstimator(critic, KEYS, gamma=0.9, lmbda=0.8, normalize="none")(batch)["agents", "advantage"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
