"""Heatmaps of cross-play tables."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from ctde_kit.training import CrossPlay
from ctde_kit.training.reporting import plot_cross_play


def random_table(n_rows: int, n_columns: int) -> CrossPlay:
    """Five episodes of every pairing, of three hunters and two prey."""
    torch.manual_seed(0)
    labels = {
        "hunters": [f"runs/hunters/{i}" for i in range(n_rows)],
        "prey": [f"prey_{i}" for i in range(n_columns)],
    }
    return CrossPlay(
        labels, {"hunters": torch.randn(n_rows, n_columns, 5, 3), "prey": torch.randn(n_rows, n_columns, 5, 2)}
    )


def test_picture_has_room_for_every_policy(tmp_path: Path) -> None:
    small = Image.open(plot_cross_play(random_table(2, 3), tmp_path / "small.png", "duel"))
    large = Image.open(plot_cross_play(random_table(9, 8), tmp_path / "large.png", "duel"))
    assert small.size[0] < large.size[0]
    assert small.size[1] < large.size[1]
    assert len(small.convert("RGB").getcolors(1 << 20) or []) > 50
