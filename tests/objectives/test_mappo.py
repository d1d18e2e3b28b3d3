"""The PPO loss with a centralized critic."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.modules import ProbabilisticActor, set_recurrent_mode
from torchrl.modules import TanhNormal as TorchRLTanhNormal
from torchrl.objectives import ClipPPOLoss

from ctde_kit.data import OnPolicyBuffer
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.modules import MultiAgentActor, MultiAgentMLP, ValueNorm, own_observation, value_critic
from ctde_kit.objectives import MAPPOLoss
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
from tests.contracts.fakes import (
    KINDS,
    SHARINGS,
    add_targets,
    collect,
    endings,
    group_spec,
    identity_actor,
    identity_critic,
    identity_group,
    make_actor,
    make_network,
)

KEYS = GroupKeys()
GARBAGE = [1e30, torch.inf, torch.nan]
LENGTH = 6

# One row for each agent's step: its action's probability now and when collected, and its advantage.
POLICY_STEPS = [
    (0.50, 0.40, 1.0),  # ratio 1.25, clipped to 1.2
    (0.50, 0.40, -2.0),  # ratio 1.25, a negative advantage is not clipped above
    (0.30, 0.50, 3.0),  # ratio 0.6, a positive advantage is not clipped below
    (0.30, 0.50, -1.0),  # ratio 0.6, clipped to 0.8
    (0.55, 0.50, 2.0),  # ratio 1.1, within
    (0.45, 0.50, -4.0),  # ratio 0.9, within
]
GAINS = [1.2, -2.5, 1.8, -0.8, 2.2, -3.6]
# One row for each agent's step: the value now and when collected, and its target.
VALUE_STEPS = [
    (1.0, 0.5, 2.0),  # moved by 0.5: clipped to 0.7, error 1.3 instead of 1
    (1.0, 0.9, 2.0),  # moved by 0.1: error 1
    (0.0, 1.0, -1.0),  # clipped to 0.8, error 1.8 instead of 1
    (3.0, 1.0, 1.0),  # clipped to 1.2, error 0.2: the larger one, 2, counts
    (5.0, 5.0, 2.0),  # error 3
    (2.0, 2.1, 2.0),  # clip inactive, no error
]


def tiny_batch() -> TensorDict:
    """Three envs of two agents, with the steps above; the action is always 1."""
    probability, old_probability, advantage = torch.tensor(POLICY_STEPS).reshape(3, 2, 3).unbind(-1)
    value, old_value, target = torch.tensor(VALUE_STEPS).reshape(3, 2, 3).unbind(-1)
    entries = {
        "observation": torch.stack([(1 - probability).log(), probability.log()], -1),
        "action": torch.ones(3, 2, dtype=torch.long),
        "action_log_prob": old_probability.log(),
        "advantage": advantage.unsqueeze(-1),
        "state": value.unsqueeze(-1),
        "state_value": old_value.unsqueeze(-1),
        "value_target": target.unsqueeze(-1),
    }
    return TensorDict({"agents": entries}, [3])


def torchrl_actor(network: Any, *out_keys: Any, **options: Any) -> ProbabilisticActor:
    """TorchRL's actor on the kit's network, which knows no group."""
    loc, scale = network.out_keys
    return ProbabilisticActor(
        network,
        in_keys={"loc": loc, "scale": scale},
        out_keys=[*out_keys],
        distribution_class=TorchRLTanhNormal,
        distribution_kwargs=options,
    )


def tiny_loss(**options: Any) -> MAPPOLoss:
    group = identity_group(mask=options.pop("mask", False))
    return MAPPOLoss(identity_actor(group), identity_critic(group), **options)


def test_the_policy_loss_by_hand() -> None:
    assert tiny_loss()(tiny_batch())["loss_objective"].item() == pytest.approx(-sum(GAINS) / 6)


def test_divergence_and_clip_fraction_by_hand() -> None:
    losses = tiny_loss()(tiny_batch())
    ratios = [now / before for now, before, _ in POLICY_STEPS]
    assert losses["approx_kl"].item() == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 6)
    assert losses["clip_fraction"].item() == pytest.approx(4 / 6)


def test_the_entropy_bonus_by_hand() -> None:
    losses = tiny_loss(entropy_coeff=0.3)(tiny_batch())
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p, _, _ in POLICY_STEPS) / 6
    assert losses["entropy"].item() == pytest.approx(entropy)
    assert losses["loss_entropy"].item() == pytest.approx(-0.3 * entropy)


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({"value_loss": "l2", "clip_value": None}, (1 + 1 + 1 + 4 + 9 + 0) / 2),
        ({"value_loss": "l2", "clip_value": 0.2}, (1.69 + 1 + 3.24 + 4 + 9 + 0) / 2),
        # Huber's loss is linear beyond 1.5: 1.5 * (error - 0.75).
        ({"huber_delta": 1.5, "clip_value": None}, 0.5 + 0.5 + 0.5 + 1.875 + 3.375),
        ({"huber_delta": 1.5, "clip_value": 0.2}, 0.845 + 0.5 + 1.575 + 1.875 + 3.375),
        ({"value_loss": "l2", "clip_value": None, "critic_coeff": 0.1}, 0.1 * 16 / 2),
    ],
)
def test_the_value_loss_by_hand(options: dict[str, Any], total: float) -> None:
    assert tiny_loss(**options)(tiny_batch())["loss_critic"].item() == pytest.approx(total / 6, rel=1e-5)


def test_targets_are_normalized_and_values_are_not() -> None:
    norm = ValueNorm()
    norm.update(torch.tensor([-2.0, 6.0]))  # mean 2, deviation 4
    loss = tiny_loss(value_loss="l2", clip_value=None, value_norm=norm)
    targets = [0.0, 0.0, -0.75, -0.25, 0.0, 0.0]
    expected = sum((value - target) ** 2 for (value, _, _), target in zip(VALUE_STEPS, targets, strict=True)) / 12
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert loss(tiny_batch())["loss_critic"].item() == pytest.approx(expected)
    assert norm.state_dict() == before


def test_explained_variance_by_hand() -> None:
    targets, errors = [t for *_, t in VALUE_STEPS], [t - v for v, _, t in VALUE_STEPS]

    def variance(x: list[float]) -> float:
        return sum((value - sum(x) / 6) ** 2 for value in x) / 6

    explained = tiny_loss()(tiny_batch())["explained_variance"].item()
    assert explained == pytest.approx(1 - variance(errors) / variance(targets), rel=1e-5)


def test_the_dead_are_left_out_of_every_mean() -> None:
    batch = tiny_batch()
    batch["agents", "mask"] = torch.tensor([[True, True], [True, False], [False, True]])
    losses = tiny_loss(mask=True, value_loss="l2", clip_value=0.2)(batch)
    assert losses["loss_objective"].item() == pytest.approx(-(1.2 - 2.5 + 1.8 - 3.6) / 4)
    assert losses["loss_critic"].item() == pytest.approx((1.69 + 1 + 3.24 + 0) / 2 / 4)
    assert losses["clip_fraction"].item() == pytest.approx(3 / 4)
    ratios, probabilities = (1.25, 1.25, 0.6, 0.9), (0.5, 0.5, 0.3, 0.45)
    assert losses["approx_kl"].item() == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 4)
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in probabilities) / 4
    assert losses["entropy"].item() == pytest.approx(entropy)
    # Targets 2, 2, -1, 2 and errors 1, 1, -1, 0.
    assert losses["explained_variance"].item() == pytest.approx(1 - (2.75 / 4) / (6.75 / 4))


def team_of(**options: Any) -> TeamSpec:
    return TeamSpec((group_spec(**options),))


def batch_of(team: TeamSpec, actor: MultiAgentActor, next_root: Any = None) -> TensorDictBase:
    return add_targets(collect(team, {"agents": actor}, *endings(length=LENGTH), next_root)[0], KEYS)


def perturb(module: torch.nn.Module, scale: float = 0.1) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def loss_of(team: TeamSpec, actor: MultiAgentActor, recurrent: bool = False, **options: Any) -> MAPPOLoss:
    return MAPPOLoss(actor, value_critic(team, team["agents"], make_network(recurrent), sees="observation"), **options)


def with_critic_hidden(batch: TensorDictBase, n_agents: int = 3) -> TensorDictBase:
    return batch.set("agents_critic_hidden", torch.zeros(*batch.shape, n_agents, 12))


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_loss_is_that_of_torchrl(kind: str) -> None:
    team = team_of(kind=kind)
    actor = make_actor(team["agents"])
    batch = batch_of(team, actor)
    perturb(actor)
    loss = loss_of(team, actor)
    reference = ClipPPOLoss(actor, loss.critic_network, clip_epsilon=0.2, entropy_bonus=False)
    reference.set_keys(
        action=KEYS.action,
        sample_log_prob=KEYS.action_log_prob,
        advantage=KEYS.advantage,
        value_target=KEYS.value_target,
        value=KEYS.state_value,
    )
    ours, theirs = loss(batch), reference(batch.clone())
    assert ours["clip_fraction"] > 0
    torch.testing.assert_close(ours["loss_objective"], theirs["loss_objective"])
    torch.testing.assert_close(ours["clip_fraction"], theirs["clip_fraction"])


def check_ratio_is_one(loss: MAPPOLoss, batch: TensorDictBase) -> None:
    losses = loss(batch)
    assert losses["approx_kl"].abs() < 1e-8
    assert losses["clip_fraction"] == 0
    with torch.no_grad(), set_recurrent_mode(True):
        log_prob = loss.actor_network.get_dist(batch.copy()).log_prob(batch[KEYS.action])
    alive = batch.get(KEYS.mask, torch.ones_like(log_prob, dtype=torch.bool))
    torch.testing.assert_close(log_prob[alive], batch[KEYS.action_log_prob][alive], rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", SHARINGS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ratio_is_one_on_a_fresh_batch(kind: str, recurrent: bool, share: Any) -> None:
    team = team_of(kind=kind, action_mask=kind != "continuous", mask=True)
    actor = make_actor(team["agents"], recurrent, share)
    _, next_root = collect(team, {"agents": actor}, *endings(length=LENGTH))
    batch = batch_of(team, actor, next_root)
    loss = loss_of(team, actor)
    check_ratio_is_one(loss, batch)
    if recurrent:
        buffer = OnPolicyBuffer(minibatch_frames=12, sequence_length=2)
        buffer.extend(batch)
        for minibatch in buffer:
            check_ratio_is_one(loss, minibatch)


@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize("half_range", [1e-3, 1.0, 500.0])
@pytest.mark.parametrize("location", [4.0, 10.0])
def test_the_ratio_is_one_where_tanh_saturates(location: float, half_range: float, recurrent: bool) -> None:
    low, high = (((1 + side * half_range,) * 2,) * 3 for side in (-1, 1))
    team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("continuous", (2,), low, high)),))
    actor = make_actor(team["agents"], recurrent)
    network = actor.agent_network.network
    head = network.head if recurrent else network.layers[-1]
    with torch.no_grad():
        head.bias[:, :2] = torch.tensor([location, -location])
    batch = batch_of(team, actor)
    assert ((batch[KEYS.action] - 1).abs() > 0.99 * half_range).any()
    check_ratio_is_one(loss_of(team, actor), batch)


def gradients(loss: MAPPOLoss, batch: TensorDictBase) -> list[Tensor]:
    losses = loss(batch)
    total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
    return list(torch.autograd.grad(total, list(loss.parameters())))


def sliced(batch: TensorDictBase, length: int) -> TensorDictBase:
    buffer = OnPolicyBuffer(batch.numel(), length)
    buffer.extend(batch)
    return next(iter(buffer))


@pytest.fixture
def recurrent_case() -> tuple[MAPPOLoss, TensorDictBase]:
    """Episodes of three steps, all of which begin in the batch, as they were collected with these weights."""
    team = team_of()
    actor = make_actor(team["agents"], recurrent=True)
    done = torch.zeros(4, LENGTH, dtype=torch.bool)
    done[:, 2] = done[:, 5] = True
    batch, _ = collect(team, {"agents": actor}, done, done)
    return loss_of(team, actor, entropy_coeff=0.1), add_targets(batch, KEYS)


def test_slices_as_long_as_the_episodes_give_the_full_gradient(
    recurrent_case: tuple[MAPPOLoss, TensorDictBase],
) -> None:
    loss, batch = recurrent_case
    full = gradients(loss, batch)
    for whole, in_slices in zip(full, gradients(loss, sliced(batch, 3)), strict=True):
        torch.testing.assert_close(whole, in_slices, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(full[0], gradients(loss, sliced(batch, 1))[0], rtol=1e-2)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_loss_does_not_depend_on_the_slices_length(
    recurrent_case: tuple[MAPPOLoss, TensorDictBase], length: int
) -> None:
    loss, batch = recurrent_case
    torch.testing.assert_close(loss(batch), loss(sliced(batch, length)), rtol=1e-4, atol=1e-6)


def test_shuffled_steps_are_no_sequence(recurrent_case: tuple[MAPPOLoss, TensorDictBase]) -> None:
    loss, batch = recurrent_case
    with pytest.raises(UserError, match="sequence_length"):
        loss(batch.reshape(-1))


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_dead_change_no_loss_and_no_gradient(kind: str, recurrent: bool, garbage: float) -> None:
    team = team_of(kind=kind, action_mask=kind != "continuous", mask=True)
    actor = make_actor(team["agents"], recurrent)
    batch = with_critic_hidden(batch_of(team, actor))
    perturb(actor)
    loss = loss_of(team, actor, recurrent, entropy_coeff=0.1)
    results = []
    for spoilt in (False, True):
        dead = ~batch[KEYS.mask]
        if spoilt:
            for name in ("observation", "action_log_prob", "advantage", "value_target", "state_value"):
                batch[KEYS(name)][dead] = garbage
            batch[KEYS.action][dead] = garbage if kind == "continuous" else 10**9
            if kind != "continuous":
                batch[KEYS.action_mask][dead] = torch.rand(batch[KEYS.action_mask][dead].shape) < 0.5
        torch.manual_seed(1)
        results.append([*loss(batch).values(), *gradients(loss, batch)])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
        assert clean.isfinite().all()


def test_an_overflowing_ratio_of_the_dead_gives_no_nan() -> None:
    # The dead agents' action reads as 0, the lower bound, where this policy's density is e^130.
    action = ActionSpec("continuous", (5,), low=((0.0,) * 5,) * 3, high=((1e-3,) * 5,) * 3)
    team = TeamSpec((GroupSpec("agents", 3, 5, action, mask=True),))
    inputs = own_observation(team["agents"])
    actor = MultiAgentActor(team["agents"], inputs, MultiAgentMLP(5, 10, 3, num_cells=()))
    with torch.no_grad():
        actor.agent_network.network.layers[0].bias.copy_(torch.tensor([-7.2543] * 5 + [-20.0] * 5))
    batch = batch_of(team, actor)
    assert all(gradient.isfinite().all() for gradient in gradients(loss_of(team, actor), batch))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", ["action", "action_log_prob", "advantage", "value_target", "state_value"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_broadcast_over_agents(kind: str, name: str, mask: bool) -> None:
    team = team_of(kind=kind, mask=mask)
    actor = make_actor(team["agents"])
    batch = batch_of(team, actor)
    batch[KEYS(name)] = batch[KEYS(name)][:, :, :1]
    with pytest.raises(UserError, match=re.escape(f"key {KEYS(name)!r}: expected")):
        loss_of(team, actor)(batch)


def test_a_mask_is_not_broadcast_over_agents() -> None:
    batch = tiny_batch()
    batch["agents", "mask"] = torch.ones(3, 1, dtype=torch.bool)
    with pytest.raises(UserError, match=r"'mask'\): expected bool \[3, n_agents=2\], found bool \[3, 1\]"):
        tiny_loss()(batch)


@pytest.mark.parametrize("name", ["action", "action_log_prob", "advantage", "value_target", "state_value"])
def test_missing_entries_are_named(name: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"key ('agents', {name!r}) is missing")):
        tiny_loss()(tiny_batch().exclude(("agents", name)))


def test_keys_can_be_changed() -> None:
    expected = tiny_loss()(tiny_batch())
    batch = tiny_batch()
    keys = {"advantage": "a", "value_target": ("b", "c"), "sample_log_prob": "d", "action": "e"}
    names = ["advantage", "value_target", "action_log_prob", "action"]
    for name, key in zip(names, keys.values(), strict=True):
        batch.rename_key_(("agents", name), key)
    loss = tiny_loss()
    loss.set_keys(**keys)
    assert set(keys.values()) <= set(loss.in_keys)
    torch.testing.assert_close(loss(batch), expected)


def test_a_group_has_its_own_keys() -> None:
    loss = tiny_loss(keys=GroupKeys("wolves"))
    assert ("wolves", "advantage") in loss.in_keys
    assert loss.tensor_keys.mask == ("wolves", "mask")


def test_without_keys_a_loss_reads_the_group_of_its_actor() -> None:
    team = TeamSpec((group_spec("wolves", 2, "continuous"), group_spec("agents", 3, "continuous")))
    wolves = team["wolves"]
    ours, critic = make_actor(wolves), value_critic(team, wolves, make_network(False))
    batch = add_targets(
        collect(team, {name: make_actor(team[name]) for name in ("wolves", "agents")}, *endings())[0], KEYS
    )
    batch = add_targets(batch, wolves.keys)
    for actor in (ours, torchrl_actor(ours.agent_network, wolves.keys.action)):
        loss, same = MAPPOLoss(actor, critic), MAPPOLoss(actor, critic, keys=wolves.keys)
        assert loss.tensor_keys == same.tensor_keys
        assert loss.tensor_keys.advantage == ("wolves", "advantage")
        assert list(loss.critics_by_group()) == list(same.critics_by_group()) == ["wolves"]
        assert loss(batch)["loss_critic"] == same(batch)["loss_critic"]


def test_an_actor_that_names_no_group_has_torchrls() -> None:
    group = group_spec("agents", 2, "continuous")
    network, critic = make_actor(group).agent_network, identity_critic(identity_group())
    for keys in (["action"], [("wolves", "action"), ("sheep", "action")], [("wolves", "move")]):
        assert MAPPOLoss(torchrl_actor(network, *keys), critic).tensor_keys.action == ("agents", "action")


def test_the_batch_is_left_as_it_was() -> None:
    team = team_of(kind="continuous")
    actor = make_actor(team["agents"], recurrent=True)
    batch = with_critic_hidden(batch_of(team, actor))
    perturb(actor)
    before = batch.clone()
    loss_of(team, actor, recurrent=True)(batch)
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    assert (batch == before).all()


def test_no_gradient_flows_into_what_was_collected() -> None:
    batch = tiny_batch()
    names = ("action_log_prob", "advantage", "value_target", "state_value")
    for name in ("observation", "state", *names):
        batch["agents", name].requires_grad_()
    losses = tiny_loss()(batch)
    (losses["loss_objective"] + losses["loss_critic"]).backward()
    assert all(batch["agents", name].grad is None for name in names)
    assert batch["agents", "observation"].grad is not None


def test_metrics_carry_no_gradient() -> None:
    batch = tiny_batch()
    batch["agents", "observation"].requires_grad_()
    batch["agents", "state"].requires_grad_()
    losses = tiny_loss(entropy_coeff=0.1)(batch)
    assert {name for name, value in losses.items() if value.requires_grad} == {
        "loss_objective",
        "loss_critic",
        "loss_entropy",
    }


def test_actor_and_critic_learn_from_their_own_losses() -> None:
    team = team_of(kind="continuous")
    actor = make_actor(team["agents"])
    batch = batch_of(team, actor)
    perturb(actor)
    loss = loss_of(team, actor, entropy_coeff=0.1)
    losses = loss(batch)
    for name, network in (("loss_objective", "critic"), ("loss_entropy", "critic"), ("loss_critic", "actor")):
        parameters = list(getattr(loss, f"{network}_network").parameters())
        gradient = torch.autograd.grad(losses[name], parameters, retain_graph=True, allow_unused=True)
        assert all(part is None for part in gradient)


def squashed_entropy_case(samples: int) -> tuple[MAPPOLoss, TensorDictBase]:
    team = team_of(kind="continuous")
    actor = make_actor(team["agents"])
    return loss_of(team, actor, samples_mc_entropy=samples), batch_of(team, actor)


def test_the_number_of_entropy_samples_is_a_setting() -> None:
    spread = {}
    for samples in (1, 64):
        loss, batch = squashed_entropy_case(samples)
        spread[samples] = torch.stack([loss(batch)["entropy"] for _ in range(30)]).std()
    assert spread[64] < spread[1] / 4


def test_another_distributions_entropy_is_estimated_from_its_log_prob() -> None:
    action = ActionSpec("continuous", (2,), low=((-2.0,) * 2,) * 3, high=((2.0,) * 2,) * 3)
    team = TeamSpec((GroupSpec("agents", 3, 5, action),))
    ours = make_actor(team["agents"])
    theirs = torchrl_actor(ours.agent_network, KEYS.action, low=-2.0, high=2.0, tanh_loc=False)
    batch = batch_of(team, ours)
    entropies = [loss_of(team, actor, samples_mc_entropy=2000)(batch)["entropy"] for actor in (ours, theirs)]
    torch.testing.assert_close(*entropies, rtol=0, atol=0.02)


def test_an_unknown_value_loss_is_an_error() -> None:
    with pytest.raises(UserError, match="huber, l2"):
        tiny_loss(value_loss="smooth_l1")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", KINDS)
def test_at_the_first_step_the_gradient_is_that_of_advantage_actor_critic(kind: str) -> None:
    """Mnih et al. 2016, section 4: the score times the advantage, a squared error, and entropy; the dead left out."""
    group = group_spec("agents", 3, kind, mask=True, action_mask=kind == "categorical")
    team, actor = TeamSpec((group,)), make_actor(group, share=False)
    critic = value_critic(team, group, make_network(False))
    batch = add_targets(collect(team, {"agents": actor}, *endings())[0], group.keys)
    loss = MAPPOLoss(actor, critic, entropy_coeff=0.0, critic_coeff=0.5, value_loss="l2")
    rows = batch.reshape(-1)
    log_prob = actor.get_dist(rows.copy()).log_prob(rows[KEYS.action])
    rows[KEYS.action_log_prob] = log_prob.detach()
    found = loss(rows)
    parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(found["loss_objective"] + found["loss_critic"], parameters)
    value = critic(rows.copy())["agents", "state_value"]
    score, error, alive = 0.0, 0.0, 0
    for row in range(len(rows)):
        for agent in range(3):
            if not rows["agents", "mask"][row, agent]:
                continue
            alive += 1
            score += log_prob[row, agent] * rows["agents", "advantage"][row, agent, 0]
            error += 0.5 * (value[row, agent, 0] - rows["agents", "value_target"][row, agent, 0]) ** 2
    expected = torch.autograd.grad(-score / alive + 0.5 * error / alive, parameters)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-7, atol=1e-9)
