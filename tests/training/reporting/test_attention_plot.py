"""Recorded attention weights, plotted and shown next to video frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict
from tensordict.nn import TensorDictModule

from ctde_kit.specs import TeamSpec
from ctde_kit.training.reporting import AttentionRecord, beside_frames, plot_attention
from tests.contracts.fakes import group_spec

TEAM = TeamSpec((group_spec("wolves", 3), group_spec("sheep", 2, "continuous")))


def recorded(steps: int) -> AttentionRecord:
    """Wolf i attends at step t to agent (t + i) modulo 5 alone."""
    counter = iter(range(steps))

    def attend(vector: torch.Tensor) -> torch.Tensor:
        t = next(counter)
        rows = (torch.arange(3) + t) % 5
        return torch.nn.functional.one_hot(rows, 5).float().expand(len(vector), 3, 5)

    critic = TensorDictModule(attend, in_keys=[("wolves", "action_vector")], out_keys=[("wolves", "attention_weight")])
    record = AttentionRecord({"wolves": critic}, TEAM)
    for _ in range(steps):
        data = TensorDict({"wolves": {"action": torch.zeros(2, 3, dtype=torch.long)}}, [2])
        data["sheep", "action"] = torch.zeros(2, 2, 2)
        record(data)
        assert ("wolves", "attention_weight") not in data.keys(True)
    return record


def test_each_step_is_kept() -> None:
    weights = recorded(7).weights["wolves"]
    assert weights.shape == (7, 3, 5)
    assert weights.argmax(-1).tolist() == [[(t + i) % 5 for i in range(3)] for t in range(7)]
    assert recorded(1).labels == ["wolves 0", "wolves 1", "wolves 2", "sheep 0", "sheep 1"]


def test_the_plot_shows_the_weights(tmp_path: Path) -> None:
    path = plot_attention(recorded(7), tmp_path / "attention.png", "a title")
    with Image.open(path) as image:
        assert image.width > 600
        assert image.height > 200
        colors: Any = image.convert("RGB").getcolors(image.width * image.height)
    area = {color: count for count, color in colors}
    # Of five cells one has all the weight; the color bar has both ends, too.
    none, all_of_it = area[68, 1, 84], area.get((253, 231, 36), 0) + area.get((253, 231, 37), 0)
    assert none / all_of_it == pytest.approx(4, rel=0.05)


def test_the_weights_of_each_step_stand_beside_its_frame() -> None:
    frames = [np.full((300, 400, 3), shade, dtype=np.uint8) for shade in (10, 10, 10, 10)]
    shown = beside_frames(frames, recorded(4))
    assert len(shown) == 4
    for before, after in zip(frames, shown, strict=True):
        assert after.shape == (300, 610, 3)
        assert after.dtype == np.uint8
        assert np.array_equal(after[:, :400], before)
    sides = [image[:, 400:] for image in shown]
    # One cell of each row is as bright as viridis gets; it moves on by one column per step.
    centers = [np.argwhere((side == (253, 231, 36)).all(-1) | (side == (253, 231, 37)).all(-1)) for side in sides]
    assert all(len(center) > 50 for center in centers)
    top = [center[center[:, 0] == center[:, 0].min()][:, 1].mean() for center in centers]
    assert top == sorted(top)
    assert len({round(column) for column in top}) == 4
