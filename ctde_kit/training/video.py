"""Animated GIFs of frame sequences."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ctde_kit.errors import UserError

MAX_PALETTE_PIXELS = 4_000_000
# GIF counts time in hundredths of a second, and players slow a frame of less than two of them down to ten.
MAX_FRAMES_PER_SECOND = 50.0


def write_gif(frames: Sequence[np.ndarray], path: Path, frames_per_second: float = 15) -> Path:
    """Write frames as a GIF that loops forever, and return its path.

    ``frames`` are uint8 ``[H, W, 3]`` of one shape; all share one palette of 256 colours, so that nothing flickers.
    Frames equal to their predecessor become a longer showing of it. Missing folders are made. The file appears
    under its name only when it is complete.

    Raises:
        UserError: if there are no frames, one has another shape or dtype, or the rate is not in (0, 50].

    >>> import tempfile
    >>> frames = [np.full((8, 8, 3), shade, dtype=np.uint8) for shade in (0, 255)]
    >>> path = write_gif(frames, Path(tempfile.mkdtemp()) / "blink.gif", frames_per_second=5)
    >>> with Image.open(path) as gif:
    ...     gif.n_frames, gif.info["duration"]
    (2, 200)
    """
    _check(frames, frames_per_second)
    palette = _shared_palette(frames)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        images[0].save(
            unfinished,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=_durations(len(images), frames_per_second),
            loop=0,
        )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _check(frames: Sequence[np.ndarray], frames_per_second: float) -> None:
    if len(frames) == 0:
        raise UserError("expected at least one frame, found none: record an episode before writing a video")
    if not 0 < frames_per_second <= MAX_FRAMES_PER_SECOND:
        raise UserError(
            f"expected frames_per_second in (0, {MAX_FRAMES_PER_SECOND:g}], found {frames_per_second}: "
            "drop frames to show an episode faster"
        )
    shape = frames[0].shape
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
            raise UserError(
                f"expected frames of dtype uint8 and one shape [H, W, 3], found frame {index} with {frame.dtype} and "
                f"{list(frame.shape)} after a first frame of {list(shape)}: convert or resize the frames"
            )


def _shared_palette(frames: Sequence[np.ndarray]) -> Image.Image:
    """A palette image for all frames, from every one of them, but from no more pixels than memory bears."""
    stride = -(-sum(frame.shape[0] * frame.shape[1] for frame in frames) // MAX_PALETTE_PIXELS)
    # The start moves on with the frames: a stride that divides the width would skip the same columns every time.
    samples = [frame.reshape(-1, 3)[index % stride :: stride] for index, frame in enumerate(frames)]
    pixels = np.concatenate(samples)[np.newaxis]
    return Image.fromarray(pixels).quantize(256, method=Image.Quantize.MEDIANCUT)


def _durations(count: int, frames_per_second: float) -> list[int]:
    """Milliseconds of every frame in whole hundredths of a second, whose sum does not drift from the exact rate."""
    ends = [round(100 * index / frames_per_second) for index in range(count + 1)]
    return [10 * (end - start) for start, end in itertools.pairwise(ends)]
