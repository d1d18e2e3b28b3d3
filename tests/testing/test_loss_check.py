"""Losses as users break them, and right ones: which rule says so, and with which figure."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import MLP, QValueActor, QValueModule, SafeSequential, ValueOperator
from torchrl.modules.models.multiagent import QMixer
from torchrl.objectives import DDPGLoss, DQNLoss, ValueEstimators
from torchrl.objectives.multiagent import QMixerLoss

from ctde_kit.testing import RuleBroken, check_deterministic_loss, check_policy_gradient_loss, check_value_loss
from tests.testing.foreign_parts import (
    ACTION,
    OBSERVATION,
    VALUES,
    UserGRU,
    UserVDN,
    actor,
    critic,
    experience,
    gaussian,
    mlp,
    ppo,
    q_batch,
    recurrent_experience,
)
from tests.testing.walk_env import N_AGENTS, SIZE


def broken(report: Any) -> dict[str, str]:
    return {finding.rule: finding.figure for finding in report.broken}


# --- the policy-gradient family


def test_torchrls_ppo_loss_and_gae_pass() -> None:
    policy = actor()
    for minibatch in (None, lambda batch: batch.reshape(-1)):
        report = check_policy_gradient_loss(ppo(policy), experience(policy), minibatch=minibatch)
        assert report["truncated_advantage_bootstraps"].verdict == "passed"


def test_values_of_the_following_row_are_found() -> None:
    policy, values = actor(), critic()

    def one_step(batch: TensorDictBase) -> TensorDictBase:
        """Advantages of one step, with the next row's value for the next observation's."""
        value = values(batch.clone())["agents", "state_value"]
        following = torch.cat([value[:, 1:], value[:, -1:]], 1)
        target = batch["next", "agents", "reward"] + 0.9 * following * ~batch["next", "agents", "terminated"]
        batch["agents", "advantage"], batch["agents", "value_target"] = target - value, target
        return batch

    report = check_policy_gradient_loss(ppo(policy), experience(policy), estimator=one_step, raises=False)
    assert list(broken(report)) == ["advantage_from_next", "truncated_advantage_bootstraps"]


def test_time_limits_that_count_as_ends_are_not_bootstrapped() -> None:
    policy = actor()
    loss = ppo(policy)
    loss.set_keys(terminated=("agents", "done"))
    found = broken(check_policy_gradient_loss(loss, experience(policy), raises=False))
    assert list(found) == ["truncated_advantage_bootstraps"]


def test_log_probabilities_of_another_policy_are_off_the_ratio() -> None:
    policy = actor()
    batch = experience(policy)
    with torch.no_grad():
        next(policy.parameters()).add_(0.5)
    found = broken(check_policy_gradient_loss(ppo(policy), batch, raises=False))
    assert list(found) == ["first_ratio", "first_kl"]
    assert found["first_ratio"].startswith("first ratio ")


def test_sequences_of_a_gru_have_ratio_1_and_flat_minibatches_have_not() -> None:
    policy = gaussian(UserGRU())
    batch, loss = recurrent_experience(policy), ppo(policy)
    slices = lambda data: torch.cat([data[:, :3], data[:, 3:6]])  # noqa: E731
    assert check_policy_gradient_loss(loss, batch, minibatch=slices)["first_ratio"].verdict == "passed"
    shuffled = lambda data: data.reshape(-1)[torch.randperm(28)]  # noqa: E731
    flat = broken(check_policy_gradient_loss(loss, batch, minibatch=shuffled, raises=False))
    assert "expected 1: the minibatch [28] was unrolled as one sequence" in flat["first_ratio"]
    batch["agents", "memory"].zero_()
    lost = broken(check_policy_gradient_loss(loss, batch, minibatch=slices, raises=False))
    assert "hidden states at the beginning of sequences" in lost["first_ratio"]


class UserPPO(nn.Module):
    """A policy-gradient loss as people write it; ``fault`` says what is wrong with it.

    Args:
        policy: the actor.
        fault: empty for nothing.
    """

    def __init__(self, policy: Any, fault: str = ""):
        super().__init__()
        self.actor_network, self.critic_network, self.fault = policy, critic(), fault

    def forward(self, batch: TensorDictBase) -> dict[str, Tensor]:
        agents, alive = batch["agents"], batch["agents", "mask"]
        advantage, target, stored = agents["advantage"], agents["value_target"], agents["action_log_prob"]
        if self.fault != "broadcasts" and not (advantage.shape == target.shape == (*stored.shape, 1)):
            raise ValueError("advantages and targets: one per agent")
        log_prob = self.actor_network.get_dist(batch.clone()).log_prob(batch[ACTION])
        seen = batch[OBSERVATION].masked_fill(~alive.unsqueeze(-1), 0)
        value = self.critic_network(batch.clone().set(OBSERVATION, seen))["agents", "state_value"]
        if self.fault == "critic in advantage":
            advantage = target - value
        if self.fault == "normalizes the dead":
            advantage = (advantage - advantage.mean()) / advantage.std()
        if self.fault == "broadcasts":  # one value per step for all agents
            value, target = value.mean(-2), target.squeeze(-1)
            error = (value - target).square().mean()
        else:
            error = ((value - target).square().squeeze(-1) * alive).sum() / alive.sum()
        # Not after exp: where() of an infinite ratio has no gradient.
        ratio = (log_prob - stored).masked_fill(~alive, 0).exp()
        gain = (
            torch.where(alive, ratio * advantage.squeeze(-1), 0)
            if self.fault != "broadcasts"
            else ratio * advantage[..., 0]
        )
        gain = -gain if self.fault == "wrong sign" else gain
        return {"loss_objective": -gain.sum() / alive.sum(), "loss_critic": error}


PPO_FAULTS = {
    "broadcasts": "no_silent_broadcast",
    "critic in advantage": "gradients_stay_home",
    "normalizes the dead": "dead_agents_change_nothing",
    "wrong sign": "advantage_is_followed",
}


def mortal_experience(policy: Any) -> TensorDictBase:
    batch = experience(policy)
    batch["agents", "mask"] = torch.rand(batch["agents"].shape) < 0.7
    return batch


def test_a_users_own_loss_passes() -> None:
    policy = actor()
    report = check_policy_gradient_loss(UserPPO(policy), mortal_experience(policy))
    assert report["no_silent_broadcast"].figure == "7 of 7 other shapes are refused, 0 mean what they say"


@pytest.mark.parametrize("fault", PPO_FAULTS)
def test_a_users_fault_in_a_policy_gradient_loss_is_found_by_its_rule(fault: str) -> None:
    policy = actor()
    with pytest.raises(RuleBroken) as caught:
        check_policy_gradient_loss(UserPPO(policy, fault), mortal_experience(policy).reshape(-1))
    assert PPO_FAULTS[fault] in broken(caught.value.report)


# --- the Q-learning family

Q_FAULTS = {
    "following row": ("target_from_next", "the target is not from them"),
    "done cuts": ("truncation_bootstraps", "it is not bootstrapped"),
    "nothing cuts": ("termination_cuts", "with what follows a terminated step, expected 0"),
    "target learns": ("target_is_detached", "it is not detached"),
    "no target network": ("target_networks_are_used", "leave the loss as it is"),
    "no mask": ("masks_in_targets", "4 masks under ('next', 'agents', 'action_mask')"),
    "-inf": ("all_masked_agent_is_finite", "the loss is inf where agent 0 may do nothing"),
    "broadcasts": ("no_silent_broadcast", "[28] instead of [28, 1] gave a loss without an error"),
    "single Q": ("double_q", "raising the target network's value of any of 4 actions"),
}
TEAM_REWARD = {"reward": "reward"}


@pytest.mark.parametrize("batch", [(28,), (4, 7)])
def test_a_right_double_q_loss_passes(batch: tuple[int, ...]) -> None:
    report = check_value_loss(UserVDN(), q_batch(*batch), keys=TEAM_REWARD, double_q=True)
    assert report["double_q"].verdict == "passed"


@pytest.mark.parametrize("fault", Q_FAULTS)
def test_a_users_fault_in_q_learning_is_found_by_its_rule(fault: str) -> None:
    rule, figure = Q_FAULTS[fault]
    report = check_value_loss(UserVDN(fault), q_batch(28), keys=TEAM_REWARD, double_q=True, raises=False)
    assert figure in broken(report)[rule]
    # One fault may break more: without target networks nothing doubles, and -inf is the target of an online network.
    also = {"-inf": {"target_networks_are_used", "double_q"}, "target learns": {"target_networks_are_used"}}
    also |= {"following row": {"truncation_bootstraps"}}
    assert set(broken(report)) - also.get(fault, set()) <= {rule}


def q_mixer_loss() -> tuple[QMixerLoss, TensorDictBase]:
    network = TensorDictModule(mlp(SIZE, 4, share=True), [OBSERVATION], [("agents", "action_value")])
    keys = [ACTION, ("agents", "action_value"), VALUES]
    greedy = QValueModule(
        action_value_key=("agents", "action_value"), out_keys=keys, spec=None, action_space="categorical"
    )
    mixer = TensorDictModule(QMixer((5,), 8, N_AGENTS, "cpu"), [VALUES, "state"], ["chosen_action_value"])
    loss = QMixerLoss(SafeSequential(network, greedy), mixer, delay_value=True, action_space="categorical")
    loss.set_keys(
        action_value=("agents", "action_value"), local_value=VALUES, global_value="chosen_action_value", action=ACTION
    )
    loss.make_value_estimator(ValueEstimators.TD0, gamma=0.9)
    batch = q_batch(28).exclude(("agents", "action_mask"), ("next", "agents", "action_mask"))
    batch["agents", "action_value"] = torch.zeros(28, N_AGENTS, 4)
    batch["state"], batch["next", "state"] = torch.randn(28, 5), torch.randn(28, 5)
    return loss, batch


def test_torchrls_q_mixer_loss_passes_and_has_no_double_q() -> None:
    loss, batch = q_mixer_loss()
    check_value_loss(loss, batch, keys=TEAM_REWARD)
    assert list(broken(check_value_loss(loss, batch, keys=TEAM_REWARD, double_q=True, raises=False))) == ["double_q"]


def single_agent(action: Tensor) -> TensorDictBase:
    flags = {name: torch.zeros(9, 1, dtype=torch.bool) for name in ("done", "terminated")}
    following = TensorDict({"observation": torch.randn(9, 4), "reward": torch.randn(9, 1), **flags}, [9])
    return TensorDict({"observation": torch.randn(9, 4), "action": action, "next": following}, [9])


def test_torchrls_dqn_loss_of_a_single_agent_passes() -> None:
    network = QValueActor(MLP(in_features=4, out_features=3, num_cells=[8]), spec=None, action_space="categorical")
    loss = DQNLoss(network, action_space="categorical", delay_value=True)
    loss.make_value_estimator(ValueEstimators.TD0, gamma=0.9)
    check_value_loss(loss, single_agent(torch.randint(3, (9,))), group=None)


# --- the deterministic family


def ddpg(policy: Any, value: Any, **keys: Any) -> DDPGLoss:
    loss = DDPGLoss(policy, value, delay_actor=True, delay_value=True)
    loss.set_keys(**keys)
    loss.make_value_estimator(ValueEstimators.TD0, gamma=0.9)
    return loss


def test_torchrls_ddpg_loss_of_a_single_agent_passes() -> None:
    policy = TensorDictModule(nn.Sequential(nn.Linear(4, 2), nn.Tanh()), ["observation"], ["action"])
    value = ValueOperator(MLP(in_features=6, out_features=1, num_cells=[8]), in_keys=["observation", "action"])
    report = check_deterministic_loss(ddpg(policy, value), single_agent(2 * torch.rand(9, 2) - 1), group=None)
    assert report["both_targets_are_used"].verdict == "passed"


class JointCritic(nn.Module):
    """A value per agent of everyone's observations and actions."""

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp(2 * SIZE, 1, centralized=True, share=True)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.network(torch.cat([observation, action], -1))


def test_torchrls_ddpg_loss_of_a_team_moves_every_actor_by_every_value() -> None:
    policy = TensorDictModule(nn.Sequential(mlp(SIZE, SIZE), nn.Tanh()), [OBSERVATION], [ACTION])
    value = TensorDictModule(JointCritic(), [OBSERVATION, ACTION], [("agents", "state_action_value")])
    names = ("state_action_value", "reward", "done", "terminated")
    loss = ddpg(policy, value, **{name: ("agents", name) for name in names})
    found = broken(check_deterministic_loss(loss, experience(policy).reshape(-1), other_actions="replay", raises=False))
    assert set(found) == {"own_actor_alone", "others_actions_are_replayed"}
    assert "'s actor: gradient" in found["own_actor_alone"]


class UserMADDPG(nn.Module):
    """MADDPG's losses as people write them; ``fault`` says what is wrong with them.

    Args:
        fault: empty for nothing.
        discrete: actions are one of three choices, one-hot.
    """

    def __init__(self, fault: str = "", discrete: bool = False):
        super().__init__()
        self.fault, self.discrete = fault, discrete
        size = 3 if discrete else SIZE
        make = lambda: TensorDictModule(mlp(SIZE, size), [OBSERVATION], [ACTION])  # noqa: E731
        self.actor_network, self.target_actor = make(), make().requires_grad_(False)
        network = lambda: mlp(SIZE + N_AGENTS * size, 1, share=False)  # noqa: E731
        self.value_network, self.target_value = _Value(network()), _Value(network()).requires_grad_(False)

    def forward(self, batch: TensorDictBase) -> dict[str, Tensor]:
        stored = batch[ACTION].float()
        current = self._act(self.actor_network, batch.clone())
        joint = torch.where(
            torch.eye(N_AGENTS, dtype=torch.bool).unsqueeze(-1), current.unsqueeze(-3), stored.unsqueeze(-3)
        )
        if self.fault == "joint":
            joint = current.unsqueeze(-3).expand_as(joint)
        self.value_network.requires_grad_(self.fault == "moves the critic")
        gain = self._value(self.value_network, batch, joint)
        self.value_network.requires_grad_(True)
        value = self._value(self.value_network, batch, stored.unsqueeze(-3).expand_as(joint))
        with torch.no_grad():
            following = batch["next"].clone()
            online = self.fault == "online actor"
            action = self._act(self.actor_network if online else self.target_actor, following)
            critics = self.value_network if self.fault == "online critic" else self.target_value
            after = self._value(critics, following, action.unsqueeze(-3).expand_as(joint))
            reward, ends = batch["next", "agents", "reward"], batch["next", "terminated"].unsqueeze(-2)
            if reward.shape != after.shape:
                raise ValueError("rewards: one per agent")
            target = reward + 0.9 * after * ~ends
        return {"loss_actor": -gain.mean(), "loss_value": (value - target).square().mean()}

    def _act(self, policy: TensorDictModule, data: TensorDictBase) -> Tensor:
        output = policy(data)[ACTION]
        if not self.discrete:
            return output.tanh()
        soft = output.softmax(-1)
        hard = nn.functional.one_hot(soft.argmax(-1), 3) + soft - soft.detach()
        return soft if self.fault == "soft actions" else hard

    def _value(self, network: nn.Module, data: TensorDictBase, joint: Tensor) -> Tensor:
        inputs = TensorDict({OBSERVATION: data[OBSERVATION], ACTION: joint}, data.batch_size)
        return network(inputs)["agents", "state_action_value"]


class _Value(TensorDictModule):
    def __init__(self, network: nn.Module):
        super().__init__(
            lambda seen, joint: network(torch.cat([seen, joint.flatten(-2)], -1)),
            [OBSERVATION, ACTION],
            [("agents", "state_action_value")],
        )
        self.network = network


MADDPG_FAULTS = {
    "joint": "own_actor_alone",
    "moves the critic": "gradients_stay_home",
    "online actor": "both_targets_are_used",
    "online critic": "both_targets_are_used",
    "soft actions": "discrete_actions_are_hard",
}


def joint_batch(discrete: bool) -> TensorDictBase:
    batch = experience(actor()).reshape(-1)
    return batch.set(ACTION, nn.functional.one_hot(torch.randint(3, (28, N_AGENTS)), 3)) if discrete else batch


@pytest.mark.parametrize("discrete", [False, True])
def test_a_users_own_maddpg_passes(discrete: bool) -> None:
    report = check_deterministic_loss(UserMADDPG("", discrete), joint_batch(discrete), other_actions="replay")
    assert report["own_actor_alone"].figure == "3 x 3 gradients, none off the diagonal"


@pytest.mark.parametrize("fault", MADDPG_FAULTS)
def test_a_users_fault_in_maddpg_is_found_by_its_rule(fault: str) -> None:
    discrete = fault == "soft actions"
    report = check_deterministic_loss(UserMADDPG(fault, discrete), joint_batch(discrete), raises=False)
    assert list(broken(report)) == [MADDPG_FAULTS[fault]]
