"""The rollout collector."""

from __future__ import annotations

import warnings

import pytest
import torch
from torchrl.envs import InitTracker, TransformedEnv, VecNormV2
from torchrl.testing.mocking_classes import CountingEnv

from ctde_kit.collectors import RolloutCollector
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError


def random_collector(frames_per_batch: int = 40, total_frames: int = 120, normalize: bool = False) -> RolloutCollector:
    env = TransformedEnv(VmasEnv("navigation", num_envs=4, max_steps=7, seed=1), InitTracker())
    if normalize:
        env.append_transform(VecNormV2(in_keys=[("agents", "observation")], decay=0.9))
    return RolloutCollector(env, env.rand_action, frames_per_batch=frames_per_batch, total_frames=total_frames)


def test_batches_are_envs_by_time_and_episodes_go_on() -> None:
    batches = list(random_collector())
    assert [tuple(batch.shape) for batch in batches] == [(4, 10)] * 3
    ends = torch.cat([batch["next", "truncated"][0, :, 0] for batch in batches])
    assert ends.nonzero().flatten().tolist() == [6, 13, 20, 27]
    starts = torch.cat([batch["is_init"][0, :, 0] for batch in batches])
    assert starts.nonzero().flatten().tolist() == [0, 7, 14, 21, 28]
    first, second = batches[0], batches[1]
    assert torch.equal(first["next", "agents", "observation"][:, -1], second["agents", "observation"][:, 0])


def test_frames_are_env_transitions() -> None:
    collector = random_collector()
    next(iter(collector))
    assert collector.frames == 40


@pytest.mark.parametrize("frames", [3, 41])
def test_frames_that_do_not_divide_are_named(frames: int) -> None:
    with pytest.raises(UserError, match="expected a multiple of the 4 envs"):
        random_collector(frames_per_batch=frames)


def test_an_env_without_batch_dimension_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch size \[n_envs\]"):
        RolloutCollector(CountingEnv(), frames_per_batch=3, total_frames=3)


def test_transforms_with_statistics_are_restored() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        collector = random_collector(normalize=True)
        next(iter(collector))
        other = random_collector(normalize=True)
        other.load_state_dict(collector.state_dict())
    saved, restored = (c.env.transform[-1].state_dict() for c in (collector, other))
    leaves = torch.utils._pytree.tree_leaves
    pairs = [(a, b) for a, b in zip(leaves(saved), leaves(restored), strict=True) if isinstance(a, torch.Tensor)]
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)
