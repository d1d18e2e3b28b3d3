"""Ten parts that were broken by someone who had not read the doctor: which rule finds each, and no alarm on its twin.

``docs/doctor.md`` has the table, with what was found before the doctor was mended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Composite, Unbounded
from torchrl.envs import Compose, InitTracker, TensorDictPrimer, TransformedEnv

from ctde_kit.testing import (
    Report,
    check_deterministic_loss,
    check_env,
    check_mixer,
    check_policy,
    check_policy_gradient_loss,
    check_state,
    check_value_loss,
)
from tests.testing import blind_envs, blind_losses, blind_mixers, blind_policies

N_ENVS, N_AGENTS, SEEN, ACTIONS, MOVE, STATE, MEMORY = 6, 3, 4, 5, 2, 7, 8


class JointNetwork(nn.Module):
    """A value per agent of all that everyone sees, or sees and does."""

    def __init__(self, inputs: int):
        super().__init__()
        self.network = blind_policies.NetworkPerAgent(N_AGENTS, N_AGENTS * inputs, 1)

    def forward(self, *parts: Tensor) -> Tensor:
        joint = torch.cat(parts, -1).flatten(-2)
        return self.network(joint.unsqueeze(-2).expand(*joint.shape[:-1], N_AGENTS, joint.shape[-1]))


def module(network: nn.Module, reads: list[str], writes: str) -> TensorDictModule:
    return TensorDictModule(network, [("agents", name) for name in reads], [("agents", writes)])


def per_agent(outputs: int) -> nn.Module:
    return blind_policies.NetworkPerAgent(N_AGENTS, SEEN, outputs)


def experience(policy: Any = None, continuous: bool = False) -> TensorDictBase:
    return blind_envs.MeetingEnv(continuous=continuous).rollout(20, policy, break_when_any_done=False)


def of_env(part: Any) -> Report:
    return check_env(part, max_steps=9, raises=False)


def of_network(part: Any) -> Report:
    policy = blind_policies.discrete_actor(part(N_AGENTS, SEEN, ACTIONS))
    return check_policy(policy, blind_envs.MeetingEnv(), raises=False)


def of_memory(part: Any) -> Report:
    memory = Composite(memory=Unbounded((N_ENVS, N_AGENTS, MEMORY)), shape=(N_ENVS, N_AGENTS))
    primer = TensorDictPrimer(Composite(agents=memory, shape=(N_ENVS,)), expand_specs=True, reset_key="_reset")
    env = TransformedEnv(blind_envs.MeetingEnv(), Compose(InitTracker(), primer))
    return check_policy(blind_policies.discrete_actor(part(SEEN, ACTIONS)), env, raises=False)


def of_policy_gradient(loss: Any = blind_losses.PPOLoss, estimator: Any = blind_losses.GAE) -> Report:
    actor = blind_policies.discrete_actor(per_agent(ACTIONS))
    critic = module(JointNetwork(SEEN), ["observation"], "state_value")
    options: dict[str, Any] = {"estimator": estimator(critic), "actor": actor, "critic": critic, "raises": False}
    return check_policy_gradient_loss(loss(actor, critic), experience(actor), **options)


def of_estimator(part: Any) -> Report:
    return of_policy_gradient(estimator=part)


def of_q_learning(part: Any) -> Report:
    network = module(per_agent(ACTIONS), ["observation"], "action_value")
    return check_value_loss(part(network), experience(), networks=network, raises=False)


def of_team_loss(part: Any) -> Report:
    actor = module(nn.Sequential(per_agent(MOVE), nn.Tanh()), ["observation"], "action")
    critic = module(JointNetwork(SEEN + MOVE), ["observation", "action"], "state_action_value")
    batch = experience(continuous=True)
    return check_deterministic_loss(part(actor, critic), batch, actor=actor, critic=critic, raises=False)


def of_mixer(part: Any) -> Report:
    values = {("agents", "chosen_action_value"): torch.zeros(6, N_AGENTS, 1), "state": torch.zeros(6, STATE)}
    return check_mixer(blind_mixers.mixer_module(part(N_AGENTS, STATE)), TensorDict(values, [6]), raises=False)


def of_learner(part: Any) -> Report:
    seen = torch.randn(8, SEEN)

    def use(learner: Any) -> Tensor:
        learner.optimizer.zero_grad()
        learner.actor(seen).square().mean().backward()
        learner.optimizer.step()
        return learner.actor(seen)

    make = lambda: part(nn.Linear(SEEN, MOVE))  # noqa: E731
    return check_state(make(), use, make=make, raises=False)


Check = Callable[[Any], Report]
# The check, the broken part, its twin, the rule that names the fault, the figure, and rules that the fault breaks, too.
PARTS: list[tuple[Check, Any, Any, str, str, set[str]]] = [
    (
        of_env,
        blind_envs.OverwrittenObservationEnv,
        blind_envs.MeetingEnv,
        "data_are_not_overwritten",
        "key ('agents', 'observation'), which the reset gave, was",
        {"last_observation_is_before_the_reset"},
    ),
    (
        of_env,
        blind_envs.ClockGoesOnEnv,
        blind_envs.MeetingEnv,
        "resets_forget_the_past",
        "are truncated in step 1 at the latest, the first ones in step 9",
        set(),
    ),
    (
        of_network,
        blind_policies.MisfoldedNetworkPerAgent,
        blind_policies.NetworkPerAgent,
        "batch_shapes",
        "off alone, expected the same wherever a row stands",
        set(),
    ),
    (
        of_memory,
        blind_policies.UnbrokenMemoryNetwork,
        blind_policies.MemoryNetwork,
        "steps_equal_sequence",
        "in step 6 of a sequence ('agents', 'logits') is",
        {"log_prob_again", "starts_from_stored_hidden"},
    ),
    (
        of_estimator,
        blind_losses.LeakingGAE,
        blind_losses.GAE,
        "advantage_from_next",
        "the value target of an episode's last step moves by",
        set(),
    ),
    (
        of_policy_gradient,
        blind_losses.PPOLossAgainstEntropy,
        blind_losses.PPOLoss,
        "entropy_is_paid_for",
        "has cosine -1 with the one that raises the entropy",
        set(),
    ),
    (
        of_q_learning,
        blind_losses.ResidualQLearningLoss,
        blind_losses.QLearningLoss,
        "target_is_detached",
        "it is not detached",
        set(),
    ),
    (
        of_team_loss,
        blind_losses.StaleActionLoss,
        blind_losses.DeterministicTeamLoss,
        "stored_action_is_not_in_the_target",
        "with the action stored in its own row",
        {"both_targets_are_used"},
    ),
    (
        of_mixer,
        blind_mixers.SmoothHyperMixer,
        blind_mixers.HyperMixer,
        "monotonic",
        "the team's value falls by",
        set(),
    ),
    (
        of_learner,
        blind_mixers.ForgivingLearner,
        blind_mixers.Learner,
        "every_entry_is_loaded",
        "load_state_dict leaves actor._orig_mod.weight at",
        {"nothing_outside_the_state"},
    ),
]


@pytest.mark.parametrize(
    ("check", "part", "twin", "rule", "figure", "also"), PARTS, ids=[part.__name__ for _, part, *_ in PARTS]
)
def test_a_part_broken_by_a_stranger_is_found_and_its_twin_is_not(
    check: Check, part: Any, twin: Any, rule: str, figure: str, also: set[str]
) -> None:
    torch.manual_seed(0)
    report = check(part)
    assert figure in report[rule].figure, str(report)
    assert {finding.rule for finding in report.broken} == {rule, *also}
    torch.manual_seed(0)
    report = check(twin)
    assert not report.broken, str(report)
    assert report[rule].verdict == "passed"
