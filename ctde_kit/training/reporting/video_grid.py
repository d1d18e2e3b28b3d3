"""Videos side by side, and written as GIF or MP4."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ctde_kit.errors import UserError
from ctde_kit.training.reporting.video import write_gif

SUFFIXES = (".gif", ".mp4")
CAPTION, TEXT_SIZE, GAP = 24, 14, 6
"""Pixels."""
COLUMNS = 3


def side_by_side(videos: Mapping[str, Sequence[np.ndarray]], height: int = 320) -> list[np.ndarray]:
    """One video of several, each under its caption, at most ``COLUMNS`` in a row; a shorter one stays at its end.

    Args:
        videos: by caption, frames uint8 ``[H, W, 3]``.
        height: of each in pixels; widths follow.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import side_by_side
    >>> videos = {"best": [np.zeros((10, 20, 3), np.uint8)], "worst": [np.zeros((10, 20, 3), np.uint8)] * 3}
    >>> frames = side_by_side(videos, height=100)
    >>> len(frames), frames[0].shape
    (3, (124, 406, 3))
    """
    length = max(map(len, videos.values()))
    tiles = [[_tile(caption, frame, height) for frame in frames] for caption, frames in videos.items()]
    return [_joined([tile[min(t, len(tile) - 1)] for tile in tiles]) for t in range(length)]


def _tile(caption: str, frame: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    tile = Image.new("RGB", (width, height + CAPTION), (255, 255, 255))
    tile.paste(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS), (0, CAPTION))
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, CAPTION, width - 1, height + CAPTION - 1), outline=(200, 200, 200))
    place = (width / 2, CAPTION / 2)
    draw.text(place, caption, (20, 20, 20), ImageFont.load_default(size=TEXT_SIZE), anchor="mm")
    return np.asarray(tile)


def _joined(tiles: Sequence[np.ndarray]) -> np.ndarray:
    height, width = tiles[0].shape[0], max(tile.shape[1] for tile in tiles)
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    shape = (rows * height + (rows - 1) * GAP, columns * width + (columns - 1) * GAP, 3)
    grid = np.full(shape, 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        grid[top : top + height, left : left + tile.shape[1]] = tile
    return grid


def check_video(path: Path) -> None:
    """Raise ``UserError`` unless ``write_video`` can write such a file here."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"output={path}: expected a file that ends with {' or '.join(SUFFIXES)}")
    if path.suffix == ".mp4":
        try:
            importlib.import_module("imageio_ffmpeg")
        except ImportError as error:
            raise UserError(
                f'output={path}: MP4 needs the package imageio-ffmpeg; pip install "ctde-kit[video]", or write a .gif'
            ) from error


def write_video(frames: Sequence[np.ndarray], path: Path, frames_per_second: float = 15) -> Path:
    """Write frames as a GIF or an MP4 (H.264), by the suffix of ``path``, and return ``path``.

    Raises:
        UserError: for another suffix, and for MP4 without imageio-ffmpeg.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from ctde_kit.training.reporting import write_video
    >>> frames = [np.full((20, 31, 3), shade, dtype=np.uint8) for shade in (0, 255)]
    >>> write_video(frames, Path(tempfile.mkdtemp()) / "blink.mp4").stat().st_size > 500
    True
    """
    check_video(path)
    if path.suffix == ".gif":
        return write_gif(frames, path, frames_per_second)
    import imageio_ffmpeg

    # H.264 wants even sides: one row or column of white is added where they are odd.
    height, width = frames[0].shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.part.mp4")
    try:
        size = (width + width % 2, height + height % 2)
        rate: Any = frames_per_second  # declared as a whole number, and any number is taken
        writer = imageio_ffmpeg.write_frames(str(unfinished), size, fps=rate, macro_block_size=2)
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(np.pad(frame, even, constant_values=255)))
        writer.close()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
