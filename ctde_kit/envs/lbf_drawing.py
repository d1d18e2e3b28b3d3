"""Pictures of level-based foraging without a screen: foods are green discs, players blue squares, with their levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

CELL = 40
"""Pixels."""
PAPER, GRID, FOOD, PLAYER, INK = (255, 255, 255), (220, 220, 220), (90, 170, 80), (70, 110, 190), (255, 255, 255)


def draw_field(field: np.ndarray, players: Sequence[tuple[tuple[int, int] | None, int]]) -> np.ndarray:
    """A picture uint8 ``[H, W, 3]``.

    Args:
        field: the level of the food in each cell, 0 for none.
        players: position (row, column) and level of each; a position may be missing before the first episode.

    >>> draw_field(np.array([[0, 2], [0, 0]]), [((1, 1), 3)]).shape
    (81, 81, 3)
    """
    rows, columns = field.shape
    image = Image.new("RGB", (columns * CELL + 1, rows * CELL + 1), PAPER)
    draw = ImageDraw.Draw(image)
    for row in range(rows + 1):
        draw.line([(0, row * CELL), (columns * CELL, row * CELL)], GRID)
    for column in range(columns + 1):
        draw.line([(column * CELL, 0), (column * CELL, rows * CELL)], GRID)
    font = ImageFont.load_default(size=CELL // 2)
    for row, column in zip(*field.nonzero(), strict=True):
        box = _box(int(row), int(column))
        draw.ellipse(box, FOOD)
        _write(draw, box, str(field[row, column]), font)
    for position, level in players:
        if position is not None:
            box = _box(*map(int, position))
            draw.rounded_rectangle(box, CELL // 8, PLAYER)
            _write(draw, box, str(level), font)
    return np.asarray(image)


def _box(row: int, column: int) -> tuple[int, int, int, int]:
    margin = CELL // 8
    return (
        column * CELL + margin,
        row * CELL + margin,
        (column + 1) * CELL - margin,
        (row + 1) * CELL - margin,
    )


def _write(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], text: str, font: Font) -> None:
    draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, INK, font, anchor="mm")
