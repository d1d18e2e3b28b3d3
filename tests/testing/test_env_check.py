"""Envs as users break them, and right ones: which rule says so, and with which figure."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchrl.envs import RewardSum, SerialEnv, StepCounter, TransformedEnv
from torchrl.envs.libs.vmas import VmasEnv as TorchRLVmasEnv
from vmas.simulator.core import Agent, World

from ctde_kit.envs.games import CueEnv, MatrixGameEnv, RecallEnv
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.testing import RuleBroken, check_env
from tests.envs.toys import ToyEnv, make_and_close
from tests.envs.vmas.keeping import Keeping
from tests.testing.walk_env import LIMIT, WalkEnv

make = pytest.fixture(name="make")(make_and_close)

FAULTS = {
    "limit terminates": ("time_limit_is_truncation", "0 of 24 envs are truncated, 24 terminated"),
    "overwrites": ("data_are_not_overwritten", "which the reset gave, was"),
    "counts on": ("resets_forget_the_past", "in step 1 at the latest, the first ones in step 6"),
    "stays tired": ("resets_forget_the_past", "in step 1 from what it did at first"),
    "observes after the reset": ("last_observation_is_before_the_reset", "'next' holds an observation after the reset"),
    "resets all": ("partial_reset", "a reset of env 0 after 2 steps moved the next step of the other 3 by"),
    "late mask": ("masks", "is in a step and not in the reset"),
    "nothing allowed": ("masks", "12 living agents may do nothing"),
    "deaf to seeds": ("seeds", "set_seed(0) twice: data differ by"),
    "rows alike": ("seeds", "all 4 envs of the batch begin alike"),
    "copies alike": ("unseeded_copies", "saw the same first observations"),
    "dtype": ("specs", "dtype torch.float32, the spec says torch.float64"),
    "batch size": ("batch_sizes", "batch size [4, 3] in the data, [4] by the specs"),
    "goes on": ("agents_own_ends", "agent 1 of 'agents' goes on in step 3, without a reset since it was done"),
    "not a number": ("finite", "is not finite in step 1"),
}


def walk(fault: str = "", discrete: bool = False) -> Any:
    return lambda seed: WalkEnv(fault=fault, discrete=discrete, seed=seed)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_right_env_has_every_rule_on_its_side(discrete: bool) -> None:
    report = check_env(walk(discrete=discrete))
    skipped = [finding.rule for finding in report.findings if finding.verdict == "skipped"]
    assert skipped == ([] if discrete else ["masks"])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_users_fault_is_found_by_its_rule(fault: str) -> None:
    rule, figure = FAULTS[fault]
    with pytest.raises(RuleBroken) as caught:
        check_env(walk(fault, discrete=fault in ("late mask", "nothing allowed")))
    report = caught.value.report
    assert figure in report[rule].figure
    # A mask that comes late is no part of the specs' data either, and NaN is in no bounds. A last observation that is
    # overwritten is the next episode's first.
    also = {"late mask": {"specs"}, "not a number": {"seeds", "specs"}}
    also |= {"overwrites": {"last_observation_is_before_the_reset"}}
    assert {finding.rule for finding in report.broken} - also.get(fault, set()) == {rule}


def test_torchrls_vmas_env_terminates_at_its_time_limit() -> None:
    report = check_env(TorchRLVmasEnv("navigation", num_envs=3, max_steps=5), raises=False)
    assert [finding.rule for finding in report.broken] == ["time_limit_is_truncation"]
    assert "after 5 steps, the time limit, 0 of 24 envs are truncated, 24 terminated" in report.broken[0].figure


@pytest.mark.parametrize(
    "env",
    [
        lambda: TransformedEnv(TorchRLVmasEnv("navigation", num_envs=3), StepCounter(5)),
        lambda: TransformedEnv(TorchRLVmasEnv("simple_tag", num_envs=3), RewardSum()).append_transform(StepCounter(5)),
        lambda: TransformedEnv(VmasEnv("balance", num_envs=3), StepCounter(5)),
        lambda: MatrixGameEnv(5, [[11, -30, 0], [-30, 7, 0], [0, 6, 5]]),
        lambda: RecallEnv(4),
        lambda: CueEnv(4, two_groups=True),
        lambda: SerialEnv(2, WalkEnv),
    ],
)
def test_right_envs_of_torchrl_and_of_the_kit_pass(env: Any) -> None:
    check_env(env)


def test_the_kits_vmas_env_truncates_and_leaves_others_alone() -> None:
    report = check_env(lambda seed: VmasEnv("navigation", num_envs=3, max_steps=5, seed=seed or 0), raises=False)
    assert report["partial_reset"].figure == "the other 2 envs are bit for bit the same"
    report = check_env(VmasEnv("simple_tag", num_envs=3, max_steps=5), max_steps=5)
    assert report["time_limit_is_truncation"].verdict == "passed"


class Phases(Keeping):
    """Pays from the tenth step on; one counter for the whole batch begins anew at every reset."""

    def prepare(self, world: World) -> None:
        self.steps = 0

    def begin(self, env_index: int | None) -> None:
        self.steps = 0

    def advance(self) -> None:
        self.steps += 1

    def seen(self, agent: Agent) -> Tensor:
        return torch.full((self.world.batch_dim,), float(self.steps >= 10))


@pytest.mark.filterwarnings("ignore:scenario 'Phases' keeps state for the whole batch")
def test_a_reset_that_touches_others_late_in_an_episode_is_found() -> None:
    report = check_env(lambda: VmasEnv(Phases, num_envs=3, max_steps=40, seed=0), raises=False)
    found = "a reset of env 0 after 21 steps moved the next step of the other 2 by 1, expected 0"
    assert report["partial_reset"].figure == found


def test_an_env_class_is_made_with_its_own_defaults() -> None:
    assert check_env(WalkEnv)["specs"].verdict == "passed"


def test_a_limit_that_the_env_does_not_keep_is_found() -> None:
    report = check_env(WalkEnv(), max_steps=LIMIT - 1, raises=False)
    assert report["time_limit_is_truncation"].figure == "an episode goes on after 5 steps, its time limit"


def test_who_goes_on_after_its_end_is_found_where_workers_mask_it(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    report = check_env(make(lambda: ToyEnv(ends={"walker_1": (2, "goes on")}, limit=4, strict=False)), raises=False)
    assert [finding.rule for finding in report.broken] == ["agents_own_ends"]
    assert report.broken[0].figure.startswith("walker_1: the environment flags the end and then goes on")
    assert [record.message.partition(":")[0] for record in caplog.records] == ["walker_1"]
    for way in ("terminated", "truncated", "vanishes"):
        check_env(make(lambda way=way: ToyEnv(ends={"walker_1": (2, way)}, limit=4)))
