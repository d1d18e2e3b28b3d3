"""Replay of transitions, sequences and episodes."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from ctde_kit.data import Episodes, Prioritized, Replay, Sequences, Transitions
from ctde_kit.data.replay import SAMPLES_AT_ONCE
from ctde_kit.data.scratch import PREFIX, ScratchDirectory
from ctde_kit.errors import UserError
from tests.forked import Forked

N_ENVS, T, N_AGENTS = 3, 8, 2
FORMS = {
    "transitions": Transitions,
    "sequences": lambda: Sequences(length=3, burn_in=2),
    "episodes": lambda: Episodes(max_steps=6),
}
# The steps at which each env's episodes end; its last episode is open.
ENDS = [(3, 7, 12), (5, 8, 13, 15), (0, 6, 9)]
LAST = torch.tensor([100 * env + step + 1 for env, steps in enumerate(ENDS) for step in steps])


def stream(n_envs: int = N_ENVS, length: int = 16) -> TensorDict:
    """Every entry says which env and step it is of: ``100 * env + step + 1``."""
    frame = 100 * torch.arange(n_envs)[:, None] + torch.arange(length) + 1
    done = torch.zeros(n_envs, length, 1, dtype=torch.bool)
    for env in range(n_envs):
        done[env, list(ENDS[env])] = True
    is_init = torch.cat([torch.ones(n_envs, 1, 1, dtype=torch.bool), done[:, :-1]], 1)
    data = TensorDict({"frame": frame, "is_init": is_init}, [n_envs, length])
    data["agents"] = {"observation": frame[..., None, None].expand(n_envs, length, N_AGENTS, 1).float().clone()}
    data["next", "done"] = done
    return data


def filled(name: str, batches: int = 2, **options: Any) -> Replay:
    replay = Replay(FORMS[name](), **{"capacity": 200, "batch_size": 5, **options})
    for batch in stream().split(16 // batches, 1):
        replay.extend(batch)
    return replay


def check_rows_belong_together(sample: TensorDict) -> None:
    frame = sample["frame"]
    observation = sample["agents", "observation"]
    assert torch.equal(observation, frame[..., None, None].expand_as(observation).float())
    assert torch.equal(sample["next", "done"].squeeze(-1), torch.isin(frame, LAST))


def episodes_of(env: int) -> list[list[int]]:
    starts = [0, *(end + 1 for end in ENDS[env])]
    return [[100 * env + t + 1 for t in range(start, end + 1)] for start, end in zip(starts, ENDS[env], strict=False)]


@pytest.mark.parametrize("stored_on", ["cpu", "device", "disk"])
@pytest.mark.parametrize("name", FORMS)
def test_samples_have_their_form_and_come_from_many_iterations(name: str, stored_on: Any) -> None:
    replay = filled(name, stored_on=stored_on)
    shape = {"transitions": (5,), "sequences": (5, 5), "episodes": (5, 6)}[name]
    steps = set()
    for _ in range(40):
        sample = replay.sample()
        assert sample.shape == shape
        check_rows_belong_together(sample)
        steps |= set((sample["frame"][sample["frame"] > 0] % 100).tolist())
    assert min(steps) <= 3  # of the first batch
    assert max(steps) > T  # and of the second
    assert replay.frames == 48


@pytest.mark.parametrize("count", [1, SAMPLES_AT_ONCE, 2 * SAMPLES_AT_ONCE + 3])
@pytest.mark.parametrize("name", FORMS)
def test_many_samples_at_once_are_as_good_as_one_after_the_other(name: str, count: int) -> None:
    replay = filled(name)
    torch.manual_seed(1)
    samples = list(replay.samples(count))
    assert [sample.shape for sample in samples] == [replay.sample().shape] * count
    for sample in samples:
        check_rows_belong_together(sample)
    assert count == 1 or len({tuple(sample["index"].flatten().tolist()) for sample in samples}) > 0.9 * count
    # What an update writes into one is its own.
    samples[0].set("td_error", torch.ones(samples[0].shape))
    assert all("td_error" not in sample for sample in samples[1:])
    assert list(replay.samples(0)) == []


def test_prioritized_samples_know_the_priorities_of_the_one_before() -> None:
    replay = Replay(Transitions(), capacity=100, batch_size=50, prioritized=Prioritized(alpha=1.0, beta=0.0))
    replay.extend(stream())
    shares = []
    for sample in replay.samples(12):
        shares.append((sample["frame"] == 1).float().mean().item())
        error = torch.where(sample["frame"] == 1, 1e3, 1e-3)
        replay.update_priority(sample.set("td_error", error))
    assert shares[-1] > 0.9


@pytest.mark.parametrize("batches", [1, 2, 4, 16])
def test_every_step_is_trained_on_in_one_sequence_after_the_steps_before_it(batches: int) -> None:
    replay = filled("sequences", batches)
    stored = torch.stack(list({tuple(row): torch.tensor(row) for row in collected(replay)}.values()))
    assert (stored.diff(dim=1) == 1).all()
    trained = stored[:, 2:].flatten().sort().values
    expected = torch.cat([100 * env + torch.arange(2, 14) + 1 for env in range(N_ENVS)])
    assert torch.equal(trained, expected)


def collected(replay: Replay) -> list[list[int]]:
    """All that is stored, in order."""
    return replay.state_dict()["items"]["entries"]["frame"].tolist()


@pytest.mark.parametrize("batches", [1, 2, 4, 16])
def test_episodes_are_whole_and_padded_whenever_their_env_ends(batches: int) -> None:
    replay = filled("episodes", batches)
    expected = [episode for env in range(N_ENVS) for episode in episodes_of(env)]
    assert sorted([f for f in row if f] for row in collected(replay)) == sorted(expected)
    for _ in range(10):
        sample = replay.sample()
        valid_mask = sample["collector", "mask"]
        assert torch.equal(valid_mask, sample["frame"] > 0)
        assert not sample["agents", "observation"][~valid_mask].any()
        assert torch.equal(sample["next", "done"].squeeze(-1).sum(1), torch.ones(5, dtype=torch.long))


def test_envs_together_give_the_episodes_of_each_alone() -> None:
    together = sorted(collected(filled("episodes")))
    alone = []
    for env in range(N_ENVS):
        replay = Replay(Episodes(max_steps=6), capacity=200, batch_size=5)
        for batch in stream()[env : env + 1].split(4, 1):
            replay.extend(batch)
        alone += collected(replay)
    assert sorted(alone) == together


def test_an_episode_that_another_follows_without_its_end_is_dropped() -> None:
    replay, data = Replay(Episodes(max_steps=16), capacity=200, batch_size=5), stream(1)
    data["is_init"][0, 5] = True  # a checkpoint reset the env in its second episode, of steps 4 to 7
    replay.extend(data)
    assert [f for f in collected(replay)[1] if f] == [6, 7, 8]


def test_the_oldest_items_are_overwritten() -> None:
    replay = filled("transitions", capacity=20)
    assert len(replay) == 20
    assert len(set(collected(replay))) == 20
    assert replay.frames == 48


def test_only_the_keys_that_are_wanted_are_stored() -> None:
    replay = filled("transitions", keys=["frame", ("next", "done"), "nowhere"])
    assert set(replay.sample().keys(True, True)) == {"frame", ("next", "done"), "index"}


@pytest.mark.parametrize("name", FORMS)
def test_priorities_belong_to_items_and_their_weights_reach_the_sample(name: str) -> None:
    replay = filled(name, prioritized=Prioritized(alpha=1.0, beta=1.0))
    every = torch.zeros(len(replay))
    for _ in range(30):
        sample = replay.sample()
        index = sample["index"].reshape(5, -1)[:, 0]
        assert torch.equal(sample["index"].reshape(5, -1), index[:, None].expand(5, sample[0].numel()))
        error = torch.where(index == 1, 9.0, 1.0)
        replay.update_priority(sample.set("td_error", error.reshape(5, *[1] * (sample.ndim - 1)).expand(sample.shape)))
        every[index] += 1
    counts, weights = torch.zeros(len(replay)), torch.zeros(len(replay))
    for _ in range(400):
        sample = replay.sample()
        index = sample["index"].reshape(5, -1)[:, 0]
        counts += torch.bincount(index, minlength=len(replay))
        weights[index] = sample["priority_weight"].reshape(5, -1)[:, 0]
    updated = (every > 0) & (torch.arange(len(replay)) != 1)
    assert counts[1] / counts[updated].mean() == pytest.approx(9.0, rel=0.25)
    torch.testing.assert_close(weights[updated], torch.ones(int(updated.sum())))
    assert weights[1].item() == pytest.approx(1 / 9, rel=1e-4)


def test_new_items_come_first() -> None:
    replay = Replay(Transitions(), capacity=100, batch_size=50, prioritized=Prioritized(alpha=1.0, beta=0.0))
    first, second = stream().split(8, 1)
    replay.extend(first)
    for _ in range(10):
        sample = replay.sample()
        replay.update_priority(sample.set("td_error", torch.full((50,), 1e-3)))
    replay.extend(second)
    assert ((replay.sample()["frame"] - 1) % 100 >= 8).float().mean() > 0.9


@pytest.mark.parametrize("stored_on", ["cpu", "disk"])
@pytest.mark.parametrize("prioritized", [None, Prioritized()], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("name", FORMS)
def test_a_restored_replay_goes_on_as_the_one_that_was_saved(
    name: str, prioritized: Any, stored_on: Any, tmp_path: Path
) -> None:
    options = {"capacity": 40, "prioritized": prioritized, "stored_on": stored_on}  # so little that it wraps around
    first = filled(name, 2, **options, directory=str(tmp_path / "first"))
    for _ in range(3):
        sample = first.sample()
        first.update_priority(sample.set("td_error", torch.rand(5, *[1] * (sample.ndim - 1)).expand(sample.shape)))
    state = first.state_dict()
    torch.save(state, tmp_path / "state.pt")

    second = filled(name, 4, **options, directory=str(tmp_path / "second"))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    outcomes = []
    for replay in (first, second):
        torch.manual_seed(3)
        np.random.seed(3)
        seen = []
        for part in stream().split(5, 1):
            replay.extend(part)
            sample = replay.sample()
            error = torch.rand(5, *[1] * (sample.ndim - 1)).expand(sample.shape)
            replay.update_priority(sample.clone().set("td_error", error))
            seen.append(sample)
        outcomes.append(seen)
    for ours, theirs in zip(*outcomes, strict=True):
        assert set(ours.keys(True, True)) == set(theirs.keys(True, True))
        for key, value in ours.items(True, True):
            assert torch.equal(value, theirs[key]), key
    assert first.frames == second.frames


@pytest.mark.parametrize("stored_on", ["cpu", "disk"])
def test_a_checkpoint_keeps_its_items_when_they_are_overwritten(stored_on: Any, tmp_path: Path) -> None:
    replay = filled("transitions", capacity=20, stored_on=stored_on, directory=str(tmp_path / "files"))
    state = replay.state_dict()
    before = state["items"]["entries"]["frame"].clone()
    for _ in range(3):
        replay.extend(stream().apply(lambda x: x + 1000 if x.dtype == torch.long else x))
    assert torch.equal(state["items"]["entries"]["frame"], before)
    assert not torch.equal(replay.state_dict()["items"]["entries"]["frame"], before)


def test_files_stand_where_they_were_asked_for_with_all_of_their_blocks(tmp_path: Path) -> None:
    replay = filled("transitions", capacity=50_000, stored_on="disk", directory=str(tmp_path / "files"))
    (directory,) = (tmp_path / "files").iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    files = list(directory.rglob("*.memmap"))
    assert files
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in files)
    del replay
    gc.collect()
    assert list((tmp_path / "files").iterdir()) == []


def test_replays_of_one_directory_keep_apart(tmp_path: Path) -> None:
    first, second = (filled("transitions", stored_on="disk", directory=str(tmp_path)) for _ in range(2))
    before = first.state_dict()["items"]["entries"]["frame"]
    second.extend(stream().apply(lambda x: x + 1000 if x.dtype == torch.long else x))
    assert torch.equal(first.state_dict()["items"]["entries"]["frame"], before)


def test_what_a_killed_program_left_is_removed_and_what_others_use_is_not(tmp_path: Path) -> None:
    def use(say: Callable[[str], None], ask: Callable[[], str]) -> None:
        scratch = ScratchDirectory(str(tmp_path))
        say(str(scratch.path))
        ask()
        scratch.remove()

    killed = Forked(use)
    assert Path(killed.said()).exists()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert len(list(tmp_path.iterdir())) == 1
    lives = Forked(use)
    used = Path(lives.said())
    (tmp_path / f"{PREFIX}of_mine").mkdir()  # without a lock it is no program's
    mine = ScratchDirectory(str(tmp_path))
    assert set(tmp_path.iterdir()) == {used, mine.path, tmp_path / f"{PREFIX}of_mine"}
    lives.tell("end")
    assert lives.wait() == 0
    mine.remove()


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    if tmp_path.stat().st_uid == 0:
        os.chown(tmp_path, 12345, -1)
    with pytest.raises(UserError, match=r"Replay: directory=.*: it belongs to user \d+, not to you"):
        ScratchDirectory(str(tmp_path))


def test_a_disk_that_is_too_small_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Replay: stored_on=.disk.: .* GB left, expected .* GB") as caught:
        filled("transitions", capacity=10**13, stored_on="disk", directory=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_disk_that_fills_up_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        filled("transitions", stored_on="disk", directory=str(tmp_path))


def test_a_directory_that_cannot_be_written_is_named() -> None:
    with pytest.raises(UserError, match=r"Replay: directory=./proc/nowhere"):
        filled("transitions", stored_on="disk", directory="/proc/nowhere")


def test_a_sequence_longer_than_what_is_stored_is_named() -> None:
    with pytest.raises(UserError, match=r"Replay: capacity=40 frames.*an item of 50 frames"):
        Replay(Sequences(length=50), capacity=40, batch_size=5)
    replay = Replay(Sequences(length=50), capacity=400, batch_size=5)
    replay.extend(stream())
    with pytest.raises(UserError, match="after 48 frames no item of 50 steps is whole"):
        replay.sample()


def test_an_episode_longer_than_max_steps_is_named() -> None:
    replay = Replay(Episodes(max_steps=4), capacity=200, batch_size=5)
    with pytest.raises(UserError, match=r"Episodes: max_steps=4"):
        replay.extend(stream())


@pytest.mark.parametrize("name", ["sequences", "episodes"])
def test_batches_come_from_the_same_envs(name: str) -> None:
    replay = Replay(FORMS[name](), capacity=200, batch_size=5)
    replay.extend(stream().split(4, 1)[0])
    with pytest.raises(UserError, match="the same 3 envs, found 2"):
        replay.extend(stream(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequences(0), "Sequences: length=0"),
        (lambda: Sequences(3, -1), "burn_in=-1"),
        (lambda: Episodes(0), "Episodes: max_steps=0"),
        (lambda: Prioritized(alpha=-1), "Prioritized: alpha=-1"),
        (lambda: Replay(Transitions(), capacity=9, batch_size=0), "Replay: .* batch_size=0"),
        (lambda: Replay(Transitions(), capacity=9, batch_size=1, stored_on="tape"), "Replay: stored_on='tape'"),
    ],
)
def test_options_are_checked(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
