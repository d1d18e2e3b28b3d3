"""Pictures of VMAS worlds without OpenGL: Pillow draws what VMAS's own viewer would show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vmas.simulator.core import Agent, Box, Entity, Line
from vmas.simulator.dynamics.holonomic import Holonomic
from vmas.simulator.dynamics.static import Static
from vmas.simulator.sensors import Lidar

from ctde_kit.envs.vmas.shapes import Camera, Canvas, Point, Rgba
from ctde_kit.errors import UserError

if TYPE_CHECKING:
    from vmas.simulator.environment.environment import Environment

INK: Rgba = (20, 20, 20, 255)
PAPER: Rgba = (255, 255, 255, 255)
BOUNDARY: Rgba = (64, 64, 64, 255)
GRID: Rgba = (232, 232, 232, 255)
RAY: Rgba = (200, 200, 200, 255)
MAX_GRID_LINES = 80
# Luminance, 0 to 255, of the bodies whose heading is marked in white.
DARK_BELOW = 100


def render_frame(env: Environment, env_index: int = 0, size: int = 480) -> np.ndarray:
    """Draw one world of a VMAS environment as uint8 ``[H, W, 3]``, whose longer side has ``size`` pixels.

    The camera is VMAS's shared one: centered on ``scenario.render_origin``, with the aspect of
    ``scenario.viewer_size``, zoomed out as far as needed to show every agent. Landmarks lie below agents; agents
    are opaque and outlined, and a mark from the center shows the heading of those that steer their own rotation.
    What ``scenario.extra_render`` would add is left out, because it needs OpenGL. Neither the environment nor
    any random state changes.

    Raises:
        UserError: if ``env_index`` names no world, ``size`` is not positive, or an entity is at no finite position.

    >>> import vmas
    >>> env = vmas.make_env("navigation", num_envs=2, seed=0)
    >>> render_frame(env, env_index=1, size=120).shape
    (120, 120, 3)
    """
    if not 0 <= env_index < env.num_envs:
        raise UserError(f"expected env_index in 0..{env.num_envs - 1}, found {env_index}: choose one of the worlds")
    if size < 1:
        raise UserError(f"expected size of at least 1 pixel, found {size}: pass the length of the longer side")
    canvas = Canvas(_shared_camera(env, env_index), size)
    _draw_grid(canvas, env)
    _draw_boundary(canvas, env)
    for landmark in env.world.landmarks:
        if _is_visible(canvas, landmark, env_index):
            _draw_body(canvas, landmark, env_index, outline=None)
    agents = [agent for agent in env.world.agents if _is_visible(canvas, agent, env_index)]
    for agent in agents:
        _draw_rays(canvas, agent, env_index)
    for agent in agents:
        _draw_body(canvas, agent, env_index, outline=INK)
        _draw_heading(canvas, agent, env_index)
    return canvas.pixels()


def _shared_camera(env: Environment, env_index: int) -> Camera:
    scenario = env.scenario
    origin_x, origin_y = (float(coordinate) for coordinate in scenario.render_origin)
    aspect = scenario.viewer_size[0] / scenario.viewer_size[1]
    zoom = scenario.viewer_zoom
    half_width, half_height = zoom * max(aspect, 1.0), zoom / min(aspect, 1.0)
    poses = [_pose(agent, env_index) for agent in env.world.agents]
    margin = 2 * max(agent.shape.circumscribed_radius() for agent in env.world.agents)
    reach_x = max(abs(x - origin_x) for x, _, _ in poses) + margin
    reach_y = max(abs(y - origin_y) for _, y, _ in poses) + margin
    # VMAS applies the zoom a second time when all agents fit, and its scenarios are tuned for that.
    scale = max(zoom, reach_x / half_width, reach_y / half_height)
    return Camera((origin_x, origin_y), scale * max(half_width, half_height), aspect)


def _draw_grid(canvas: Canvas, env: Environment) -> None:
    camera, spacing = canvas.camera, env.scenario.grid_spacing
    # Denser lines would merge into a gray area.
    if not env.scenario.plot_grid or 2 * camera.half_extent / spacing > MAX_GRID_LINES:
        return
    left, right = camera.center[0] - camera.half_width, camera.center[0] + camera.half_width
    bottom, top = camera.center[1] - camera.half_height, camera.center[1] + camera.half_height
    for step in range(math.ceil(left / spacing), math.floor(right / spacing) + 1):
        canvas.line((step * spacing, bottom), (step * spacing, top), GRID, stroke=1)
    for step in range(math.ceil(bottom / spacing), math.floor(top / spacing) + 1):
        canvas.line((left, step * spacing), (right, step * spacing), GRID, stroke=1)


def _draw_boundary(canvas: Canvas, env: Environment) -> None:
    x_semidim, y_semidim = env.world.x_semidim, env.world.y_semidim
    if not env.scenario.visualize_semidims or (x_semidim is None and y_semidim is None):
        return
    camera = canvas.camera
    # An unlimited side ends well outside the picture, so that only the limits show.
    far_x = abs(camera.center[0]) + 2 * camera.half_extent if x_semidim is None else float(x_semidim)
    far_y = abs(camera.center[1]) + 2 * camera.half_extent if y_semidim is None else float(y_semidim)
    corners = [(-far_x, -far_y), (far_x, -far_y), (far_x, far_y), (-far_x, far_y)]
    canvas.polygon(corners, outline=BOUNDARY, stroke=2)


def _draw_body(canvas: Canvas, entity: Entity, env_index: int, outline: Rgba | None) -> None:
    color = _color(entity, env_index)
    shape = entity.shape
    if isinstance(shape, Line):
        start, end = _in_world(entity, env_index, [(-shape.length / 2, 0), (shape.length / 2, 0)])
        canvas.line(start, end, color, stroke=4)
    elif isinstance(shape, Box):
        x, y = shape.length / 2, shape.width / 2
        corners = _in_world(entity, env_index, [(-x, -y), (x, -y), (x, y), (-x, y)])
        if shape.hollow:
            canvas.polygon(corners, outline=color, stroke=4)
        else:
            canvas.polygon(corners, color, outline, stroke=2)
    else:
        canvas.circle(_pose(entity, env_index)[:2], shape.circumscribed_radius(), color, outline, stroke=2)


def _draw_heading(canvas: Canvas, agent: Agent, env_index: int) -> None:
    # A mark on an agent whose actions never turn it would suggest a heading that means nothing.
    if not agent.rotatable or isinstance(agent.dynamics, Holonomic | Static):
        return
    front = agent.shape.length / 2 if isinstance(agent.shape, Box) else agent.shape.circumscribed_radius()
    # Short of the front, so that the outline stays whole.
    start, end = _in_world(agent, env_index, [(0, 0), (0.75 * front, 0)])
    red, green, blue, _ = _color(agent, env_index)
    is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < DARK_BELOW
    canvas.line(start, end, PAPER if is_dark else INK, stroke=3)


def _draw_rays(canvas: Canvas, agent: Agent, env_index: int) -> None:
    x, y, heading = _pose(agent, env_index)
    for sensor in agent.sensors or ():
        # Measuring here would change the sensor, so the rays are those of the last observation.
        if not isinstance(sensor, Lidar) or not sensor._render or sensor._last_measurement is None:
            continue
        angles = sensor._angles[env_index].tolist()
        for angle, distance in zip(angles, sensor._last_measurement[env_index].tolist(), strict=True):
            direction = heading + angle
            canvas.line((x, y), (x + distance * math.cos(direction), y + distance * math.sin(direction)), RAY, stroke=1)


def _is_visible(canvas: Canvas, entity: Entity, env_index: int) -> bool:
    # The public `is_rendering` fills itself in when first read, which would change the environment.
    is_shown = entity._render is None or bool(entity._render[env_index])
    return is_shown and canvas.camera.sees(_pose(entity, env_index)[:2], entity.shape.circumscribed_radius())


def _pose(entity: Entity, env_index: int) -> tuple[float, float, float]:
    """Position and rotation in world units and radians."""
    state: Any = entity.state  # VMAS declares its state tensors as None
    (x, y), (rotation,) = state.pos[env_index].tolist(), state.rot[env_index].tolist()
    if not all(map(math.isfinite, (x, y, rotation))):
        raise UserError(
            f"expected a finite pose of {entity.name!r}, found x={x}, y={y}, rotation={rotation} in world {env_index}: "
            "the simulation diverged, reset it"
        )
    return x, y, rotation


def _in_world(entity: Entity, env_index: int, points: list[Point]) -> list[Point]:
    """Points of the entity's own frame, turned and moved to where the entity is."""
    x, y, rotation = _pose(entity, env_index)
    cos, sin = math.cos(rotation), math.sin(rotation)
    return [(x + cos * dx - sin * dy, y + sin * dx + cos * dy) for dx, dy in points]


def _color(entity: Entity, env_index: int) -> Rgba:
    """The color as 0..255: scenarios give 3 or 4 floats in 0..1, for all worlds or as one row per world."""
    color = entity.color
    if isinstance(color, torch.Tensor):
        color = (color[env_index] if color.ndim > 1 else color).tolist()
    red, green, blue, alpha = (round(255 * min(max(float(part), 0.0), 1.0)) for part in (*color, 1.0)[:4])
    return red, green, blue, alpha
