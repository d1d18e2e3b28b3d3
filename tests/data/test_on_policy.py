"""The on-policy buffer: random minibatches of one fresh batch."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer

from ctde_kit.data import OnPolicyBuffer
from ctde_kit.errors import UserError

N_ENVS, LENGTH, N_AGENTS, F = 4, 6, 3, 5


def numbered() -> TensorDict:
    """Every entry says which env, step and agent it belongs to: ``100 * env + step`` and ``agent``."""
    frame = 100 * torch.arange(N_ENVS)[:, None] + torch.arange(LENGTH)
    per_agent = torch.stack([frame[..., None].expand(-1, -1, N_AGENTS), torch.arange(N_AGENTS).expand(4, 6, 3)], -1)
    data = TensorDict({"frame": frame, "state": frame[..., None].expand(-1, -1, F).clone()}, [N_ENVS, LENGTH])
    data["agents"] = {"observation": per_agent.float()}
    return data.set(("next", "done"), frame[..., None].clone())


def check_rows_belong_together(minibatch: TensorDict) -> None:
    frame = minibatch["frame"]
    assert torch.equal(minibatch["state"], frame[..., None].expand_as(minibatch["state"]))
    assert torch.equal(minibatch["next", "done"].squeeze(-1), frame)
    observation = minibatch["agents", "observation"]
    assert torch.equal(observation[..., 0], frame[..., None].expand_as(observation[..., 0]).float())
    assert torch.equal(observation[..., 1], torch.arange(3.0).expand_as(observation[..., 1]))


@pytest.mark.parametrize(("sequence_length", "shape"), [(None, (12,)), (2, (6, 2)), (3, (4, 3)), (6, (2, 6))])
def test_each_frame_comes_once_a_pass_with_all_of_its_entries(
    sequence_length: int | None, shape: tuple[int, ...]
) -> None:
    buffer = OnPolicyBuffer(12, sequence_length)
    buffer.extend(numbered())
    minibatches = list(buffer)
    assert [tuple(minibatch.shape) for minibatch in minibatches] == [shape, shape]
    for minibatch in minibatches:
        check_rows_belong_together(minibatch)
    frames = torch.cat([minibatch["frame"].flatten() for minibatch in minibatches])
    assert torch.equal(frames.sort().values, numbered()["frame"].flatten())


@pytest.mark.parametrize("sequence_length", [2, 3, 6])
def test_a_slice_is_consecutive_steps_of_one_env(sequence_length: int) -> None:
    buffer = OnPolicyBuffer(12, sequence_length)
    buffer.extend(numbered())
    minibatches = list(buffer)
    assert len(minibatches) == 2
    for minibatch in minibatches:
        frame = minibatch["frame"]
        assert (frame.diff(dim=1) == 1).all()
        assert (frame[:, 0] % 100 % sequence_length == 0).all()


def test_each_pass_has_another_order() -> None:
    buffer = OnPolicyBuffer(6)
    buffer.extend(numbered())
    first, second = (torch.cat([minibatch["frame"] for minibatch in buffer]) for _ in range(2))
    assert not torch.equal(first, second)


def test_what_is_left_over_is_dropped_and_is_other_frames_each_pass() -> None:
    buffer = OnPolicyBuffer(10)
    buffer.extend(numbered())
    passes = [torch.cat([minibatch["frame"] for minibatch in buffer]) for _ in range(2)]
    assert [len(frames) for frames in passes] == [20, 20]
    assert set(passes[0].tolist()) != set(passes[1].tolist())


def test_a_new_batch_takes_the_place_of_the_last() -> None:
    buffer = OnPolicyBuffer(24)
    buffer.extend(numbered())
    later = numbered()
    later["frame"] += 1000
    buffer.extend(later)
    assert (next(iter(buffer))["frame"] >= 1000).all()


def test_torchrls_buffer_can_stand_in_its_place() -> None:
    theirs = ReplayBuffer(storage=LazyTensorStorage(24), batch_size=12)
    theirs.extend(numbered().reshape(-1))
    check_rows_belong_together(next(iter(theirs)))


def test_an_empty_buffer_is_an_error() -> None:
    with pytest.raises(UserError, match="empty"):
        next(iter(OnPolicyBuffer(6)))


def test_more_frames_than_the_batch_has_are_an_error() -> None:
    with pytest.raises(UserError, match="only 24 frames"):
        OnPolicyBuffer(25).extend(numbered())


def test_sizes_that_do_not_divide_are_errors() -> None:
    with pytest.raises(UserError, match="multiple of sequence_length=5"):
        OnPolicyBuffer(12, 5)
    with pytest.raises(UserError, match="divisor of the 6 steps"):
        OnPolicyBuffer(12, 4).extend(numbered())


@pytest.mark.parametrize("sizes", [(0, None), (-6, None), (6, 0)])
def test_sizes_are_positive(sizes: tuple) -> None:
    with pytest.raises(UserError, match="at least 1"):
        OnPolicyBuffer(*sizes)


def test_minibatches_have_the_wanted_entries_alone() -> None:
    buffer = OnPolicyBuffer(minibatch_frames=4, keys=["a", ("agents", "b"), "absent"])
    batch = TensorDict({"a": torch.arange(8).reshape(2, 4), "c": torch.zeros(2, 4)}, [2, 4])
    batch["agents", "b"] = torch.arange(8).reshape(2, 4)
    buffer.extend(batch)
    minibatches = list(buffer)
    assert len(minibatches) == 2
    for minibatch in minibatches:
        assert set(minibatch.keys(True, True)) == {"a", ("agents", "b")}
        assert torch.equal(minibatch["a"], minibatch["agents", "b"])


@pytest.mark.parametrize("length", [None, 3])
def test_other_entries_are_split_as_the_batch_is(length: int | None) -> None:
    buffer = OnPolicyBuffer(6, length)
    with pytest.raises(UserError, match="the buffer is empty"):
        _ = buffer.items
    buffer.extend(TensorDict({"t": torch.arange(24).reshape(4, 6), "other": torch.zeros(4, 6)}, [4, 6]))
    assert buffer.items.shape == ((24,) if length is None else (8, 3))
    part = buffer.items.select("t")
    shapes = {minibatch.shape for minibatch in buffer.of(part)}
    assert shapes == {minibatch.shape for minibatch in buffer}
    passed = torch.cat([minibatch["t"].flatten() for minibatch in buffer.of(part)])
    assert passed.sort().values.tolist() == list(range(24))
    assert "other" not in next(iter(buffer.of(part)))
