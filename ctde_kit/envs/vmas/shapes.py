"""A drawing surface in world coordinates: circles, polygons and lines on a Pillow image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Rgba = tuple[int, int, int, int]

SUPERSAMPLING = 2
REFERENCE_SIZE = 700


@dataclass(frozen=True)
class Camera:
    """The part of the world that a picture shows.

    ``center`` and ``half_extent``, which is half of the longer side, are in world units; ``aspect`` is width / height.

    >>> camera = Camera(center=(0.0, 0.0), half_extent=2.0, aspect=2.0)
    >>> camera.half_width, camera.half_height
    (2.0, 1.0)
    >>> camera.sees((2.1, 0.0), radius=0.2), camera.sees((0.0, 1.3), radius=0.2)
    (True, False)
    """

    center: Point
    half_extent: float
    aspect: float

    @property
    def half_width(self) -> float:
        return self.half_extent * min(self.aspect, 1.0)

    @property
    def half_height(self) -> float:
        return self.half_extent / max(self.aspect, 1.0)

    def sees(self, point: Point, radius: float) -> bool:
        """Whether a disc may reach into the picture."""
        return (
            abs(point[0] - self.center[0]) <= self.half_width + radius
            and abs(point[1] - self.center[1]) <= self.half_height + radius
        )


class Canvas:
    """A white picture whose drawing methods take world coordinates, with y pointing up.

    Positions and radii are in world units. Stroke widths are in pixels of a picture whose longer side has 700, so
    that a small picture is the large one scaled down. Translucent colors blend with what lies below them.

    >>> canvas = Canvas(Camera(center=(0.0, 0.0), half_extent=2.0, aspect=2.0), size=40)
    >>> canvas.circle((1.0, 0.0), radius=0.5, fill=(255, 0, 0, 255))
    >>> pixels = canvas.pixels()
    >>> pixels.shape, pixels[10, 30].tolist(), pixels[10, 10].tolist()
    ((20, 40, 3), [255, 0, 0], [255, 255, 255])
    """

    def __init__(self, camera: Camera, size: int) -> None:
        self.camera = camera
        width = max(1, round(size * min(camera.aspect, 1.0)))
        height = max(1, round(size / max(camera.aspect, 1.0)))
        self._pixels_per_unit = SUPERSAMPLING * size / (2 * camera.half_extent)
        self._pixels_per_stroke = SUPERSAMPLING * size / REFERENCE_SIZE
        self._image = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), "white")
        # "RGBA" drawing on an RGB image is what makes Pillow blend instead of overwrite.
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def circle(
        self, center: Point, radius: float, fill: Rgba, outline: Rgba | None = None, stroke: float = 0.0
    ) -> None:
        """A disc, whose outline grows inwards."""
        # A diameter of whole pixels keeps a moving disc from pulsating.
        diameter = max(1, round(2 * radius * self._pixels_per_unit))
        x, y = self._project(center)
        left, top = round(x - diameter / 2), round(y - diameter / 2)
        box = (left, top, left + diameter - 1, top + diameter - 1)
        # An outline as wide as everywhere else would leave no fill in the smallest discs.
        width = min(self._stroke_pixels(stroke), max(1, diameter // 8))
        self._draw.ellipse(box, fill=fill, outline=outline, width=width)

    def polygon(
        self, corners: list[Point], fill: Rgba | None = None, outline: Rgba | None = None, stroke: float = 0.0
    ) -> None:
        """A filled polygon, its outline (which grows inwards), or both."""
        self._draw.polygon(self._pixel_points(corners), fill=fill, outline=outline, width=self._stroke_pixels(stroke))

    def line(self, start: Point, end: Point, color: Rgba, stroke: float) -> None:
        """A straight line."""
        self._draw.line(self._pixel_points([start, end]), fill=color, width=self._stroke_pixels(stroke))

    def pixels(self) -> np.ndarray:
        """The picture as uint8 ``[H, W, 3]``, smoothed down to its final size."""
        return np.array(self._image.reduce(SUPERSAMPLING))

    def _project(self, point: Point) -> Point:
        x = self._image.width / 2 + (point[0] - self.camera.center[0]) * self._pixels_per_unit
        y = self._image.height / 2 - (point[1] - self.camera.center[1]) * self._pixels_per_unit
        return x, y

    def _pixel_points(self, points: list[Point]) -> list[tuple[int, int]]:
        # Pillow names a pixel by its center, and would truncate floats toward zero.
        return [(round(x - 0.5), round(y - 0.5)) for x, y in map(self._project, points)]

    def _stroke_pixels(self, stroke: float) -> int:
        return max(SUPERSAMPLING, round(stroke * self._pixels_per_stroke))
