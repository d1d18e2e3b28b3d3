"""Cross-play tables, on a game whose returns are known."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError
from ctde_kit.modules import RandomActor
from ctde_kit.specs import TeamSpec
from ctde_kit.training import CrossPlay, cross_play

SIZES = {"hunters": 3, "prey": 2}
STEPS = 4


class Duel(EnvBase):
    """Hunter i gets (i + 1) times the hunters' action less the prey's; prey j gets ten times its action plus j."""

    def __init__(self, n_envs: int):
        super().__init__(batch_size=torch.Size([n_envs]))
        self.t = torch.zeros(n_envs, 1)
        groups = {name: Composite(observation=self._unbounded(n, 1), shape=(n_envs, n)) for name, n in SIZES.items()}
        self.observation_spec = Composite(**groups, shape=(n_envs,))
        actions = {
            name: Composite(action=Categorical(6, shape=(n_envs, n)), shape=(n_envs, n)) for name, n in SIZES.items()
        }
        self.action_spec = Composite(**actions, shape=(n_envs,))
        rewards = {name: Composite(reward=self._unbounded(n, 1), shape=(n_envs, n)) for name, n in SIZES.items()}
        self.reward_spec = Composite(**rewards, shape=(n_envs,))

    def _unbounded(self, *shape: int) -> Unbounded:
        return Unbounded((*self.batch_size, *shape))

    def _reset(self, tensordict: TensorDictBase | None = None, **_: object) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        self.t = torch.zeros_like(self.t) if mask is None else self.t.masked_fill(mask, 0)
        return self._observed()

    def _observed(self) -> TensorDict:
        return TensorDict(
            {(name, "observation"): self.t.unsqueeze(-1).expand(-1, n, 1).clone() for name, n in SIZES.items()},
            self.batch_size,
        )

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.t = self.t + 1
        hunters, prey = tensordict["hunters", "action"], tensordict["prey", "action"]
        following = self._observed()
        hunters_reward = (torch.arange(3) + 1) * hunters - prey[:, :1]
        following["hunters", "reward"] = hunters_reward.unsqueeze(-1).float()
        following["prey", "reward"] = (10 * prey + torch.arange(2)).unsqueeze(-1).float()
        done = self.t >= STEPS
        return following.update({"done": done, "terminated": done.clone()})

    def _set_seed(self, seed: int | None) -> None:
        """Nothing is random."""


def always(group: str, action: int) -> TensorDictModule:
    n_agents = SIZES[group]
    return TensorDictModule(
        lambda observation: torch.full(observation.shape[:-1], action).expand(-1, n_agents),
        in_keys=[(group, "observation")],
        out_keys=[(group, "action")],
    )


def table(episodes: int = 10) -> CrossPlay:
    """Two hunters that always play 2 and 5; three prey that always play 0, 1 and 3."""
    sides = {
        "hunters": {"slow": always("hunters", 2), "fast": always("hunters", 5)},
        "prey": {f"plays {action}": always("prey", action) for action in (0, 1, 3)},
    }
    return cross_play(sides, lambda pairing: Duel(5), episodes=episodes, seed=0)


def test_every_pairing_has_its_own_returns() -> None:
    result = table()
    assert result.returns["hunters"].shape == (2, 3, 10, 3)
    assert result.returns["prey"].shape == (2, 3, 10, 2)
    # Hunters 1, 2, 3 with action a against prey action b: 4 steps of a - b, 2a - b, 3a - b.
    expected = [[4 * (6 * a - 3 * b) for b in (0, 1, 3)] for a in (2, 5)]
    assert result.return_sum("hunters").tolist() == expected == [[48, 36, 12], [120, 108, 84]]
    # Prey 0 and 1: 4 steps of 10b and 10b + 1.
    assert result.return_sum("prey").tolist() == [[4, 84, 244]] * 2


def test_records_name_policies_and_returns(tmp_path: Path) -> None:
    records = table().records()
    assert [(record["hunters"], record["prey"]) for record in records] == [
        ("slow", "plays 0"), ("slow", "plays 1"), ("slow", "plays 3"),
        ("fast", "plays 0"), ("fast", "plays 1"), ("fast", "plays 3"),
    ]  # fmt: skip
    assert records[4] == {
        "hunters": "fast",
        "prey": "plays 1",
        "hunters/return_mean": 36.0,
        "hunters/return_sum": 108.0,
        "hunters/return_sum_std": 0.0,
        "prey/return_mean": 42.0,
        "prey/return_sum": 84.0,
        "prey/return_sum_std": 0.0,
        "episodes": 10,
    }
    with open(table().write_csv(tmp_path / "table.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["hunters/return_sum"]) for row in rows] == [48, 36, 12, 120, 108, 84]


def test_the_deviation_is_the_sums_over_episodes() -> None:
    returns = {"a": torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]), "b": torch.zeros(1, 1, 2, 3)}
    record = CrossPlay({"a": ["x"], "b": ["y"]}, returns).records()[0]
    assert record["a/return_sum_std"] == 3.0  # of 3 and 9
    assert record["a/return_mean"] == 3.0


def test_all_pairings_play_the_same_episodes_and_leave_the_random_state_alone() -> None:
    env = VmasEnv("simple_tag", num_envs=9, max_steps=20, scenario_kwargs={"num_good_agents": 2})
    team = TeamSpec.from_env(env)
    sides = {group.name: {str(i): RandomActor(group) for i in range(2)} for group in team}
    state = torch.get_rng_state()
    returns = cross_play(sides, lambda pairing: env, episodes=18, seed=3).returns["adversary"]
    assert torch.equal(torch.get_rng_state(), state)
    assert returns.shape == (2, 2, 18, 3)
    assert returns[0, 0].unique().numel() > 1
    for cell in returns.flatten(0, 1):
        assert torch.equal(cell, returns[0, 0])


@pytest.mark.parametrize("sides", [{"a": {}}, {"a": {"x": None}, "b": {}}, {name: {"x": None} for name in "abc"}])
def test_two_groups_with_policies_are_needed(sides: dict) -> None:
    with pytest.raises(UserError, match="expected two groups with policies, found"):
        cross_play(sides, lambda pairing: Duel(5), episodes=5, seed=0)
