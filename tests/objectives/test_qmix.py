"""The double-Q loss, by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentQActor, VDNMixer, own_observation
from ctde_kit.objectives import NStepReturn, QMixLoss, TDLambdaReturn
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import identity_group

GAMMA = 0.5


class Shifted(nn.Module):
    """Values are the observation and a shift of each action's."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class SumAndState(TensorDictModuleBase):
    """The team's value is the sum of its agents' and the state."""

    def __init__(self) -> None:
        super().__init__()
        self.in_keys, self.out_keys = [("agents", "chosen_action_value"), "state"], ["chosen_action_value"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        value = tensordict["agents", "chosen_action_value"].sum(-2)
        return tensordict.set("chosen_action_value", value + tensordict["state"])


def make_loss(mixed: bool = True, state: bool = False, **options: Any) -> QMixLoss:
    """Two agents; the target networks add 10 to the value of action 0 and 20 to that of action 1."""
    group = identity_group(action_mask=options.pop("action_mask", False), mask=options.pop("mask", False))
    actor = MultiAgentQActor(group, own_observation(group), Shifted())
    mixer = (SumAndState() if state else VDNMixer(TeamSpec((group,)))) if mixed else None
    loss = QMixLoss({"agents": actor}, mixer, gamma=GAMMA, **{"value_loss": "l2", **options})
    if loss.target_networks is not None:
        loss.target_networks["actor_agents"].network.shift.copy_(torch.tensor([10.0, 20.0]))
    return loss


# One row for each step of an env: both agents' values, actions, next values, the team's reward, terminated.
STEPS = [
    ([[1.0, 2.0], [3.0, 4.0]], [0, 1], [[5.0, 6.0], [8.0, 7.0]], 1.0, False),  # chosen 1 + 4, next 26 + 18
    ([[1.0, 2.0], [3.0, 4.0]], [1, 0], [[0.0, 9.0], [9.0, 0.0]], 2.0, True),  # chosen 2 + 3, nothing follows
    ([[0.0, 1.0], [2.0, 0.0]], [1, 1], [[1.0, 0.0], [0.0, 1.0]], 3.0, False),  # chosen 1 + 0, next 11 + 21
]
CHOSEN = [5.0, 5.0, 1.0]
TARGETS = [1 + GAMMA * 44, 2.0, 3 + GAMMA * 32]


def transitions() -> TensorDict:
    values, actions, following, reward, terminated = (torch.tensor(part) for part in zip(*STEPS, strict=True))
    data = TensorDict({}, [3])
    data["agents", "observation"], data["agents", "action"] = values, actions
    data["next"] = {"agents": {"observation": following, "reward": torch.full((3, 2, 1), 100.0)}}
    data["next", "reward"] = reward.unsqueeze(-1)
    data["next", "terminated"] = terminated.unsqueeze(-1)
    data["next", "done"] = data["next", "terminated"].clone()
    return data


def squares(errors: list[float]) -> float:
    return sum(error**2 for error in errors) / 2


def test_double_q_by_hand() -> None:
    errors = [q - t for q, t in zip(CHOSEN, TARGETS, strict=True)]
    losses = make_loss()(transitions())
    assert losses["loss_qvalue"].item() == pytest.approx(squares(errors) / 3)
    assert losses["td_error"].item() == pytest.approx(sum(map(abs, errors)) / 3)
    assert losses["chosen_action_value"].item() == pytest.approx(sum(CHOSEN) / 3)
    assert losses["target_value"].item() == pytest.approx(sum(TARGETS) / 3)


def test_without_targets_the_online_networks_value_what_they_choose() -> None:
    targets = [1 + GAMMA * 14, 2.0, 3 + GAMMA * 2]
    expected = squares([q - t for q, t in zip(CHOSEN, targets, strict=True)]) / 3
    assert make_loss(use_target_networks=False)(transitions())["loss_qvalue"].item() == pytest.approx(expected)


def test_huber_is_linear_beyond_delta() -> None:
    errors = [abs(q - t) for q, t in zip(CHOSEN, TARGETS, strict=True)]
    expected = sum(e - 0.5 if e > 1 else e**2 / 2 for e in errors) / 3
    assert make_loss(value_loss="huber")(transitions())["loss_qvalue"].item() == pytest.approx(expected)
    expected = sum(4 * (e - 2) if e > 4 else e**2 / 2 for e in errors) / 3
    loss = make_loss(value_loss="huber", huber_delta=4.0)
    assert loss(transitions())["loss_qvalue"].item() == pytest.approx(expected)


def test_importance_weights_multiply_and_priorities_are_written() -> None:
    errors = [q - t for q, t in zip(CHOSEN, TARGETS, strict=True)]
    data = transitions().set("priority_weight", torch.tensor([0.5, 2.0, 0.0]))
    expected = (0.5 * errors[0] ** 2 + 2 * errors[1] ** 2) / 2 / 3
    assert make_loss()(data)["loss_qvalue"].item() == pytest.approx(expected)
    assert data["td_error"].tolist() == pytest.approx([abs(error) for error in errors])


def test_independent_agents_learn_from_their_own_rewards() -> None:
    data = transitions()
    chosen = [(1, 4), (2, 3), (1, 0)]
    following = [(26, 18), (0, 0), (11, 21)]
    errors = [
        q - 100 - GAMMA * n for qs, ns in zip(chosen, following, strict=True) for q, n in zip(qs, ns, strict=True)
    ]
    assert make_loss(mixed=False)(data)["loss_qvalue"].item() == pytest.approx(squares(errors) / 6)
    per_env = [(abs(errors[2 * i]) + abs(errors[2 * i + 1])) / 2 for i in range(3)]
    assert data["td_error"].tolist() == pytest.approx(per_env)  # a priority belongs to a step, not to an agent


def test_an_agent_that_ends_by_itself_is_not_bootstrapped() -> None:
    data = transitions()
    ends = torch.tensor([[True, False], [False, False], [False, False]]).unsqueeze(-1)
    data["next", "agents", "terminated"], data["next", "agents", "done"] = ends, ends.clone()
    target = make_loss(mixed=False)(data)["target_value"].item()
    assert target == pytest.approx((600 + GAMMA * (0 + 18 + 0 + 0 + 11 + 21)) / 6)


def test_the_targets_action_is_one_that_is_allowed_next() -> None:
    data = transitions()
    data["agents", "action_mask"] = torch.ones(3, 2, 2, dtype=torch.bool)
    data["next", "agents", "action_mask"] = data["agents", "action_mask"].clone()
    data["next", "agents", "action_mask"][0, 0, 1] = False  # the first agent's better one: 5 + 10 instead of 26
    targets = [1 + GAMMA * 33, *TARGETS[1:]]
    assert make_loss(action_mask=True)(data)["target_value"].item() == pytest.approx(sum(targets) / 3)


def test_an_agent_that_may_do_nothing_leaves_loss_and_gradient_finite() -> None:
    data = transitions()
    data["agents", "action_mask"] = torch.ones(3, 2, 2, dtype=torch.bool)
    data["agents", "action_mask"][1, 1] = False
    data["next", "agents", "action_mask"] = data["agents", "action_mask"].clone()
    data["next", "agents", "action_mask"][0, 1] = False  # the no-op's value follows: 8 + 10
    loss = make_loss(action_mask=True)
    losses = loss(data)
    assert losses["target_value"].item() == pytest.approx(sum(TARGETS) / 3)
    losses["loss_qvalue"].backward()
    gradient = loss.actors["agents"].agent_network.network.shift.grad
    assert gradient.isfinite().all()
    assert gradient.any()


def test_the_targets_state_is_the_next_one_not_the_following_rows() -> None:
    data = transitions().unsqueeze(0)  # a sequence of three steps
    data["state"] = torch.tensor([[[100.0], [200.0], [300.0]]])
    data["next", "state"] = torch.tensor([[[7.0], [8.0], [9.0]]])  # the second step ended: 300 is of another episode
    losses = make_loss(state=True)(data)
    assert losses["chosen_action_value"].item() == pytest.approx((sum(CHOSEN) + 600) / 3)
    assert losses["target_value"].item() == pytest.approx((sum(TARGETS) + GAMMA * (7 + 9)) / 3)


@pytest.mark.parametrize("mixed", [True, False])
def test_the_dead_change_nothing_and_the_gone_are_not_in_the_targets_mix(mixed: bool) -> None:
    data = transitions()
    data["agents", "mask"] = torch.tensor([[True, True], [True, False], [True, True]])
    data["next", "agents", "mask"] = torch.tensor([[True, False], [True, False], [True, True]])
    ends = torch.tensor([[False, True], [False, False], [False, False]]).unsqueeze(-1)
    data["next", "agents", "done"], data["next", "agents", "terminated"] = ends, ends.clone()
    loss = make_loss(mixed, mask=True)
    losses, gradient = with_gradient(loss, data)
    if mixed:
        assert losses["chosen_action_value"].item() == pytest.approx((5 + 2 + 1) / 3)
        assert losses["target_value"].item() == pytest.approx((1 + GAMMA * 26 + 2 + TARGETS[2]) / 3)
    for garbage in (1e30, torch.inf, torch.nan):
        data["agents", "observation"][1, 1] = garbage
        data["agents", "action"][1, 1] = 10**9
        data["next", "agents", "reward"][1, 1] = garbage
        data["next", "agents", "observation"][0, 1] = garbage
        again, same = with_gradient(loss, data)
        assert all(torch.equal(losses[name], again[name]) for name in losses.keys())  # noqa: SIM118
        assert torch.equal(gradient, same)


def test_agents_whose_time_is_up_are_bootstrapped_though_envs_call_them_dead() -> None:
    data = transitions()
    data["agents", "mask"] = torch.ones(3, 2, dtype=torch.bool)
    data["next", "agents", "mask"] = torch.zeros(3, 2, dtype=torch.bool)
    data["next", "done"] = torch.ones(3, 1, dtype=torch.bool)
    assert make_loss(mask=True)(data)["target_value"].item() == pytest.approx(sum(TARGETS) / 3)


def with_gradient(loss: QMixLoss, data: TensorDict) -> tuple[TensorDictBase, Tensor]:
    losses = loss(data)
    shift = loss.actors["agents"].agent_network.network.shift
    return losses.detach(), torch.autograd.grad(losses["loss_qvalue"], shift)[0]


def sequence(done: tuple[int, ...] = (), terminated: tuple[int, ...] = ()) -> TensorDict:
    """One env, four steps; rewards 1, 2, 4, 8; next values 30 + 30, ..., by the target networks 100 a step."""
    data = TensorDict({}, [1, 4])
    data["agents", "observation"] = torch.zeros(1, 4, 2, 2)
    data["agents", "action"] = torch.zeros(1, 4, 2, dtype=torch.long)
    following = torch.tensor([0.0, 30.0]).expand(1, 4, 2, 2).clone()
    data["next"] = {"agents": {"observation": following}, "reward": torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])}
    for name, steps in (("done", done), ("terminated", terminated)):
        flags = torch.zeros(1, 4, 1, dtype=torch.bool)
        flags[:, list(steps)] = True
        data["next", name] = flags
    return data


V = GAMMA * 100
RETURNS = [
    (NStepReturn(1), (), [1 + V, 2 + V, 4 + V, 8 + V]),
    (NStepReturn(2), (), [1 + (2 + V) / 2, 2 + (4 + V) / 2, 4 + (8 + V) / 2, 8 + V]),
    (NStepReturn(3), (1,), [1 + 2 / 2, 2, 4 + (8 + V) / 2, 8 + V]),
    (TDLambdaReturn(1.0), (1,), [1 + 2 / 2, 2, 4 + (8 + V) / 2, 8 + V]),
    (TDLambdaReturn(0.0), (), [1 + V, 2 + V, 4 + V, 8 + V]),
]


@pytest.mark.parametrize(("returns", "ends", "targets"), RETURNS)
def test_returns_over_sequences_by_hand(returns: Any, ends: tuple[int, ...], targets: list[float]) -> None:
    losses = make_loss(returns=returns)(sequence(done=ends, terminated=ends))
    assert losses["loss_qvalue"].item() == pytest.approx(squares(targets) / 4, rel=1e-5)


def test_time_limits_bootstrap_and_cut_the_trace() -> None:
    losses = make_loss(returns=TDLambdaReturn(1.0))(sequence(done=(1,)))
    assert losses["target_value"].item() == pytest.approx((1 + (2 + V) / 2 + 2 + V + 4 + (8 + V) / 2 + 8 + V) / 4)


def test_a_trace_does_not_cross_a_reset_that_no_done_announced() -> None:
    data = sequence()
    data["is_init"] = torch.tensor([True, False, True, False]).reshape(1, 4, 1)
    losses = make_loss(returns=TDLambdaReturn(1.0))(data)
    assert losses["target_value"].item() == pytest.approx((1 + (2 + V) / 2 + 2 + V + 4 + (8 + V) / 2 + 8 + V) / 4)


def test_padding_is_in_no_mean() -> None:
    data = sequence(done=(1,), terminated=(1,))
    data["collector", "mask"] = torch.tensor([[True, True, False, False]])
    for garbage in (0.0, 1e30, torch.inf, torch.nan):
        data["next", "reward"][:, 2:] = garbage
        losses = make_loss(returns=TDLambdaReturn(1.0))(data)
        assert losses["loss_qvalue"].item() == pytest.approx(squares([2, 2]) / 2)
        assert data["td_error"].flatten().tolist() == pytest.approx([2.0] * 4)


def test_the_priority_of_a_sequence_mixes_largest_and_mean() -> None:
    data = sequence(done=(0, 1, 2, 3), terminated=(0, 1, 2, 3))
    make_loss()(data)
    assert data["td_error"].flatten().tolist() == pytest.approx([0.9 * 8 + 0.1 * 15 / 4] * 4)


def test_weights_of_sequences_are_an_items() -> None:
    data = torch.cat([sequence(done=(0, 1, 2, 3), terminated=(0, 1, 2, 3))] * 2)
    for weight in (torch.tensor([2.0, 0.0]), torch.tensor([[2.0] * 4, [0.0] * 4])):
        data["priority_weight"] = weight if weight.ndim == 2 else weight.unsqueeze(-1).expand(2, 4)
        assert make_loss()(data)["loss_qvalue"].item() == pytest.approx(2 * squares([1, 2, 4, 8]) / 8)


def test_keys_can_be_others() -> None:
    loss, data = make_loss(), transitions()
    expected = loss(data.clone())["loss_qvalue"]
    data["next", "team_reward"] = data["next"].pop("reward")
    data["weights"] = torch.ones(3)
    loss.set_keys(reward="team_reward", priority="error", priority_weight="weights")
    assert ("next", "team_reward") in loss.in_keys
    assert loss(data)["loss_qvalue"] == expected
    assert data["error"].shape == (3,)


@pytest.mark.parametrize("mixed", [True, False])
def test_in_keys_are_all_that_is_needed(mixed: bool) -> None:
    data = transitions()
    data["agents", "action_mask"] = torch.ones(3, 2, 2, dtype=torch.bool)
    data["next", "agents", "action_mask"] = torch.ones(3, 2, 2, dtype=torch.bool)
    loss = make_loss(mixed, action_mask=True)
    assert loss(data.select(*loss.in_keys))["loss_qvalue"] == loss(data)["loss_qvalue"]
    for key in loss.in_keys:
        with pytest.raises(UserError, match=re.escape(f"key {key!r} is missing")):
            loss(data.select(*loss.in_keys).exclude(key))


@pytest.mark.parametrize("key", [("agents", "action"), ("next", "reward"), ("next", "agents", "reward")])
def test_nothing_is_broadcast_over_agents(key: Any) -> None:
    data = transitions()
    loss = make_loss(mixed="agents" not in key)
    if key == ("next", "reward"):
        data[key] = data["next", "agents", "reward"].squeeze(-1)
    else:
        data[key] = data[key][:, :1]
    with pytest.raises(UserError, match=re.escape(f"key {key!r}: expected")):
        loss(data)


@pytest.mark.parametrize("returns", [NStepReturn(2), TDLambdaReturn(0.5)])
def test_single_steps_are_no_sequence(returns: Any) -> None:
    with pytest.raises(UserError, match="replay of sequences or episodes"):
        make_loss(returns=returns)(transitions())


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="value_loss='l1'"):
        make_loss(value_loss="l1")
    with pytest.raises(UserError, match=r"NStepReturn: n=0"):
        NStepReturn(0)
    with pytest.raises(UserError, match=r"TDLambdaReturn: lmbda=1\.5"):
        TDLambdaReturn(1.5)
    with pytest.raises(UserError, match="burn_in=4"):
        make_loss(burn_in=4)(sequence())


def test_the_state_holds_the_targets() -> None:
    loss, other = make_loss(), make_loss()
    other.target_networks["actor_agents"].network.shift.zero_()
    other.load_state_dict(loss.state_dict())
    assert other.target_networks["actor_agents"].network.shift.tolist() == [10.0, 20.0]
    assert not any(parameter.requires_grad for parameter in loss.target_networks.parameters())
