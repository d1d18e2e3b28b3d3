"""Videos of episodes as animated GIF files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ctde_kit.errors import UserError

MAX_PALETTE_PIXELS = 4_000_000
# GIF counts time in hundredths of a second, and players show a frame of less than two of them for ten.
MAX_FRAMES_PER_SECOND = 50.0


def write_gif(frames: Sequence[np.ndarray], path: Path, frames_per_second: float = 15) -> Path:
    """Write frames as a GIF that loops forever, and return ``path``.

    All frames share one palette of 256 colors, so that colors do not flicker. Consecutive equal frames are stored once,
    with a longer duration. The file is written under a temporary name and renamed when it is complete.

    Args:
        frames: uint8 ``[H, W, 3]``, all of one shape.
        path: of the file; missing directories are created.
        frames_per_second: in (0, 50].

    Raises:
        UserError: if there are no frames, a frame has another shape or dtype, or the rate is not in (0, 50].

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from PIL import Image
    >>> from ctde_kit.training.reporting import write_gif
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
    """A palette image computed from pixels of all frames, at most ``MAX_PALETTE_PIXELS`` to limit memory."""
    stride = -(-sum(frame.shape[0] * frame.shape[1] for frame in frames) // MAX_PALETTE_PIXELS)
    # Each frame starts at another pixel: a stride that divides the width would always skip the same columns.
    samples = [frame.reshape(-1, 3)[index % stride :: stride] for index, frame in enumerate(frames)]
    pixels = np.concatenate(samples)[np.newaxis]
    return Image.fromarray(pixels).quantize(256, method=Image.Quantize.MEDIANCUT)


def _durations(count: int, frames_per_second: float) -> list[int]:
    """Each frame's duration in milliseconds, a multiple of 10; rounding errors do not add up over the video."""
    ends = [round(100 * index / frames_per_second) for index in range(count + 1)]
    return [10 * (end - start) for start, end in itertools.pairwise(ends)]
