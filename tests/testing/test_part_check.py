"""Policies, mixers and states as users break them, and right ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.modules import EGreedyModule, GRUModule, ProbabilisticActor, QValueModule
from torchrl.modules.models.multiagent import QMixer, VDNMixer

from ctde_kit.errors import UserError
from ctde_kit.testing import check_mixer, check_policy, check_state
from tests.testing.foreign_parts import (
    ACTION,
    OBSERVATION,
    VALUES,
    UserGRU,
    actor,
    gaussian,
    mlp,
    recurrent_experience,
)
from tests.testing.walk_env import N_AGENTS, SIZE, WalkEnv


def broken(report: Any) -> dict[str, str]:
    return {finding.rule: finding.figure for finding in report.broken}


# --- policies


def test_torchrls_multi_agent_mlp_passes() -> None:
    report = check_policy(actor(), WalkEnv())
    assert report["own_data_alone"].figure == "3 agents, no output moves with another agent's data"


class FromZero(nn.Module):
    """A GRU that reads ``[B, T, n_agents, F]`` from zero, and ``[B, n_agents, F]`` as one step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(SIZE, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, observation: Tensor) -> Tensor:
        steps = observation if observation.ndim == 4 else observation.unsqueeze(1)
        batch, length, agents, size = steps.shape
        found, _ = self.gru(steps.transpose(1, 2).reshape(batch * agents, length, size))
        actions = self.head(found).tanh().reshape(batch, agents, length, 2).transpose(1, 2)
        return actions if observation.ndim == 4 else actions.squeeze(1)


def test_a_network_that_reads_sequences_from_zero_passes() -> None:
    report = check_policy(TensorDictModule(FromZero(), [OBSERVATION], [ACTION]), WalkEnv(), raises=False)
    assert not broken(report)
    assert report["batch_shapes"].figure.startswith("6 rows, alone, in another order, off by")


def test_a_centralized_actor_sees_others() -> None:
    found = broken(check_policy(actor(centralized=True), WalkEnv(), raises=False))
    assert list(found) == ["own_data_alone"]
    assert check_policy(actor(centralized=True), WalkEnv(), decentralized=False)["own_data_alone"].verdict == "skipped"


def test_an_epsilon_greedy_policy_of_torchrl_passes() -> None:
    env = WalkEnv(discrete=True)
    network = TensorDictModule(mlp(SIZE, 4), [OBSERVATION], [("agents", "action_value")])
    greedy = QValueModule(
        action_value_key=("agents", "action_value"),
        out_keys=[ACTION, ("agents", "action_value"), VALUES],
        spec=None,
        action_space="categorical",
        action_mask_key=("agents", "action_mask"),
    )
    explore = EGreedyModule(
        env.full_action_spec_unbatched, action_key=ACTION, action_mask_key=("agents", "action_mask")
    )
    assert check_policy(TensorDictSequential(network, greedy, explore), env)["masks_are_obeyed"].verdict == "passed"


class Noisy(nn.Module):
    def forward(self, observation: Tensor) -> Tensor:
        return (observation + 0.1 * torch.randn_like(observation)).tanh()


def test_noise_in_evaluation_is_found() -> None:
    found = broken(check_policy(TensorDictModule(Noisy(), [OBSERVATION], [ACTION]), WalkEnv(), raises=False))
    assert "actions that differ by" in found["no_noise_in_evaluation"]


def masked_actor(reads_mask: bool) -> ProbabilisticActor:
    module = TensorDictModule(mlp(SIZE, 4), [OBSERVATION], [("agents", "logits")])
    keys = {"logits": ("agents", "logits"), "mask": ("agents", "action_mask")}
    distribution = torch.distributions.Categorical
    return ProbabilisticActor(
        module,
        in_keys=keys if reads_mask else {"logits": ("agents", "logits")},
        out_keys=[ACTION],
        distribution_class=UserCategorical if reads_mask else distribution,
        return_log_prob=True,
    )


class UserCategorical(torch.distributions.Categorical):
    def __init__(self, logits: Tensor, mask: Tensor):
        super().__init__(logits=logits.masked_fill(~mask, -1e9))


def test_masks_are_obeyed_or_not() -> None:
    check_policy(masked_actor(True), WalkEnv(discrete=True))
    found = broken(check_policy(masked_actor(False), WalkEnv(discrete=True), raises=False))
    assert set(found) == {"masks_are_obeyed", "masks_in_log_probs"}
    assert "actions are forbidden by the mask, expected 0" in found["masks_are_obeyed"]


def test_a_users_gru_is_right_but_for_flat_minibatches() -> None:
    policy = gaussian(UserGRU())
    found = broken(check_policy(policy, recurrent_experience(policy), raises=False))
    assert list(found) == ["flat_minibatch_is_refused"]
    assert found["flat_minibatch_is_refused"].endswith("the minibatch [12] was unrolled as one sequence")


def test_a_hidden_state_that_is_lost_between_steps_is_found() -> None:
    policy = gaussian(UserGRU())
    batch = recurrent_experience(policy)
    batch["agents", "memory"].zero_()
    found = broken(check_policy(policy, batch, raises=False))
    assert "steps do not start from what the step before wrote" in found["hidden_state_survives"]
    hidden = gaussian(UserGRU(("agents", "_memory")))
    found = broken(check_policy(hidden, batch.set(("agents", "_memory"), batch["agents", "memory"]), raises=False))
    assert "starts with an underscore" in found["hidden_state_survives"]


class Forgetful(UserGRU):
    """Goes on across the end of an episode when it is unrolled."""

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        is_init = tensordict["is_init"].clone()
        if tensordict.ndim > 1:
            tensordict["is_init"] = torch.zeros_like(is_init)
        return super().forward(tensordict).set("is_init", is_init)


def test_a_sequence_that_ignores_resets_is_found() -> None:
    policy = gaussian(Forgetful())
    found = broken(check_policy(policy, recurrent_experience(policy), raises=False))
    assert "of a sequence" in found["steps_equal_sequence"]


def test_torchrls_gru_module_unrolls_flat_minibatches() -> None:
    gru = GRUModule(
        input_size=4, hidden_size=6, in_keys=["observation", "memory", "is_init"], out_keys=["h", ("next", "memory")]
    )
    policy = TensorDictSequential(gru, TensorDictModule(nn.Linear(6, 2), ["h"], ["action"]))
    root = {"observation": torch.randn(5, 7, 4), "memory": torch.zeros(5, 7, 1, 6), "action": torch.zeros(5, 7, 2)}
    batch = TensorDict({**root, "is_init": torch.zeros(5, 7, 1, dtype=torch.bool)}, [5, 7])
    found = broken(check_policy(policy, batch, group=None, raises=False))
    assert list(found) == ["flat_minibatch_is_refused"]


def test_data_that_hold_no_action_are_refused() -> None:
    with pytest.raises(UserError, match="expected an env, or a batch"):
        check_policy(actor(), TensorDict({}, [3]))
    with pytest.raises(UserError, match="keys\\['move'\\]: expected some of observation"):
        check_policy(actor(), WalkEnv(), keys={"move": ACTION})


# --- mixers


def mixer_data() -> TensorDictBase:
    return TensorDict({VALUES: torch.zeros(6, N_AGENTS, 1), "state": torch.zeros(6, 7)}, [6])


class UserMixer(nn.Module):
    """Linear in the values, with weights of the state; ``fault`` says what is wrong with it."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault, self.weight = fault, nn.Linear(7, N_AGENTS)

    def forward(self, values: Tensor, state: Tensor, mask: Tensor | None = None) -> Tensor:
        weight = self.weight(state)
        weight = weight if self.fault == "signed" else weight.abs()
        values = values.squeeze(-1)
        if mask is not None:
            values = values * mask if self.fault == "multiplies" else values.masked_fill(~mask, 0)
        mixed = (weight * values).sum(-1, keepdim=True)
        return mixed - mixed.mean() if self.fault == "centers" else mixed


def test_torchrls_mixers_pass() -> None:
    check_mixer(TensorDictModule(QMixer((7,), 8, N_AGENTS, "cpu"), [VALUES, "state"], ["team"]), mixer_data())
    check_mixer(TensorDictModule(VDNMixer(N_AGENTS, "cpu"), [VALUES], ["team"]), mixer_data())


@pytest.mark.parametrize(
    ("fault", "rules"),
    [
        ("", set()),
        ("signed", {"monotonic", "argmax_per_agent"}),
        ("multiplies", {"dead_agents_are_left_out"}),
        ("centers", {"monotonic", "argmax_per_agent", "batch_shapes"}),
    ],
)
def test_a_users_fault_in_a_mixer_is_found_by_its_rule(fault: str, rules: set[str]) -> None:
    data = mixer_data().set(("agents", "mask"), torch.ones(6, N_AGENTS, dtype=torch.bool))
    mixer = TensorDictModule(UserMixer(fault), [VALUES, "state", ("agents", "mask")], ["team"])
    before = mixer.module.weight.weight.clone()
    found = set(broken(check_mixer(mixer, data, raises=False)))
    assert found == rules or (fault == "centers" and "batch_shapes" in found <= rules)
    assert torch.equal(mixer.module.weight.weight, before)


# --- states


class Normalizer(nn.Module):
    """Running means of what it sees; ``fault`` says what is wrong with it."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault = fault
        self.mean: Any = torch.zeros(3)
        if fault != "not saved":
            del self.mean
            self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.mean = self.mean + (x.mean(0) - self.mean) / self.count
        return x - self.mean

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        if self.fault == "not loaded":
            state_dict = {**state_dict, "count": self.count}
        return super().load_state_dict(state_dict, *args, **kwargs)


def use(part: Any) -> Any:
    return part(torch.randn(5, 3))


def test_parts_whose_state_is_whole_pass() -> None:
    assert check_state(Normalizer(), use)["every_entry_is_loaded"].figure == "2 tensors and numbers"
    check_state(nn.BatchNorm1d(3), use)


def test_a_normalizer_that_is_not_saved_is_found_and_named() -> None:
    found = broken(check_state(Normalizer("not saved"), use, raises=False))
    assert "what differs: mean" in found["nothing_outside_the_state"]
    found = broken(check_state(Normalizer("not loaded"), use, raises=False))
    assert "load_state_dict leaves count at" in found["every_entry_is_loaded"]
