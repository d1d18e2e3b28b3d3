"""Recorded episodes, and GIF files: frames, durations, colors and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDictBase
from torchrl.envs.utils import ExplorationType

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError
from ctde_kit.training.reporting import record_chosen, write_gif


def moving_square(count: int) -> list[np.ndarray]:
    frames = []
    for index in range(count):
        frame = np.full((40, 60, 3), 255, dtype=np.uint8)
        frame[10:20, 3 * index : 3 * index + 8] = (191, 64, 64)
        frame[0, 0] = (0, 0, 10 * index)
        frames.append(frame)
    return frames


def read(path: Path) -> tuple[list[np.ndarray], list[int], int]:
    with Image.open(path, formats=["GIF"]) as gif:
        frames, durations = [], []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
            frames.append(np.array(gif.convert("RGB")))
        return frames, durations, gif.info["loop"]


def test_frames_come_back_as_written(tmp_path: Path) -> None:
    frames = moving_square(12)
    path = write_gif(frames, tmp_path / "episode.gif")
    assert path == tmp_path / "episode.gif"
    read_back, _, loop = read(path)
    assert loop == 0
    assert len(read_back) == len(frames)
    for found, expected in zip(read_back, frames, strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(("rate", "total"), [(15, 800), (30, 400), (10, 1200), (7.5, 1600)])
def test_the_playing_time_matches_the_rate(tmp_path: Path, rate: float, total: int) -> None:
    _, durations, _ = read(write_gif(moving_square(12), tmp_path / "episode.gif", frames_per_second=rate))
    assert len(durations) == 12
    assert sum(durations) == total
    assert max(durations) - min(durations) <= 10


def test_more_than_256_colors_stay_close_and_steady(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    gradient = np.stack([*np.meshgrid(ramp, ramp), np.full((64, 64), 128, dtype=np.uint8)], axis=-1).astype(np.uint8)
    frames = [gradient.copy() for _ in range(5)]
    for index, frame in enumerate(frames):
        frame[index * 8 : index * 8 + 8, :8] = 255
    found, _, _ = read(write_gif(frames, tmp_path / "gradient.gif"))
    assert np.abs(np.stack(found).astype(int) - np.stack(frames)).mean() < 8
    assert all(np.array_equal(frame[:, 8:], found[0][:, 8:]) for frame in found)


def test_a_palette_from_few_pixels_still_has_thin_and_late_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving_square(12)
    for frame in frames:
        frame[:, 55] = (0, 128, 0)
    stride = 6
    monkeypatch.setattr(
        "ctde_kit.training.reporting.video.MAX_PALETTE_PIXELS", sum(frame[..., 0].size for frame in frames) // stride
    )
    found, _, _ = read(write_gif(frames, tmp_path / "episode.gif"))
    assert found[-1][15, 36].tolist() == [191, 64, 64]
    assert found[-1][15, 55].tolist() == [0, 128, 0]


def test_missing_folders_are_made_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "episode.gif"
    write_gif(moving_square(3), path)
    write_gif(moving_square(5), path)
    assert len(read(path)[0]) == 5
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_half_way_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gif(moving_square(3), tmp_path / "episode.gif")
    before = path.read_bytes()

    def save_half(self: Image.Image, target: Path, **_: Any) -> None:
        Path(target).write_bytes(before[: len(before) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        write_gif(moving_square(5), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_no_frames_are_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one frame"):
        write_gif([], tmp_path / "episode.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [0, -1, 51, float("nan")])
def test_a_rate_that_no_player_shows_is_a_user_error(tmp_path: Path, rate: float) -> None:
    with pytest.raises(UserError, match=r"frames_per_second in \(0, 50\], found"):
        write_gif(moving_square(2), tmp_path / "episode.gif", frames_per_second=rate)


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros((40, 60), dtype=np.uint8),
        np.zeros((40, 60, 4), dtype=np.uint8),
        np.zeros((40, 61, 3), dtype=np.uint8),
        np.zeros((40, 60, 3), dtype=np.float32),
    ],
)
def test_a_frame_of_another_shape_or_dtype_is_a_user_error(tmp_path: Path, odd: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"found frame 2 with .* after a first frame of \[40, 60, 3\]"):
        write_gif([*moving_square(2), odd], tmp_path / "episode.gif")


def test_a_policy_is_recorded_in_the_mode_in_which_it_was_evaluated() -> None:
    env = VmasEnv("navigation", num_envs=2, max_steps=3)
    modes = []

    class Still(torch.nn.Module):
        def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
            modes.append(self.training)
            return tensordict.set(("agents", "action"), torch.zeros(2, 4, 2))

    policy: Any = Still()
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    record_chosen(env, policy, lambda _: picture, [0], seed=0, exploration=ExplorationType.DETERMINISTIC)
    assert modes == [False] * 3
    assert policy.training
