from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import vmas
from vmas.simulator.core import Agent, Box, Landmark, Line, Shape, Sphere, World
from vmas.simulator.dynamics.holonomic_with_rot import HolonomicWithRotation
from vmas.simulator.environment.environment import Environment
from vmas.simulator.scenario import BaseScenario
from vmas.simulator.sensors import Lidar

from ctde_kit.envs.vmas.rendering import render_frame
from ctde_kit.errors import UserError

SIZE = 200
RED = (1.0, 0.0, 0.0)
GREEN = (0.0, 1.0, 0.0)
BLUE = (0.0, 0.0, 1.0)
WHITE = [255, 255, 255]


class Stage(BaseScenario):
    """A world of given entities, seen with zoom 1: the picture shows -1..1 as long as every agent fits."""

    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.viewer_zoom = 1.0
        for name, value in kwargs.pop("view", {}).items():
            setattr(self, name, value)
        world = World(batch_dim, device, **kwargs.pop("world", {}))
        for entity in kwargs.pop("entities"):
            world.add_agent(entity) if isinstance(entity, Agent) else world.add_landmark(entity)
        return world

    def reset_world_at(self, env_index: int | None = None) -> None: ...

    def observation(self, agent: Agent) -> torch.Tensor:
        return torch.zeros(self.world.batch_dim, 1)

    def reward(self, agent: Agent) -> torch.Tensor:
        return torch.zeros(self.world.batch_dim)


def stage(*entities: Agent | Landmark, **kwargs: Any) -> Environment:
    return make(Stage(), entities=entities, **kwargs)


def make(scenario: str | BaseScenario, **kwargs: Any) -> Environment:
    env = vmas.make_env(scenario, num_envs=2, device="cpu", seed=0, **kwargs)
    assert isinstance(env, Environment)
    return env


def step(env: Environment) -> None:
    env.step(list(env.get_random_actions()))


def disc(name: str = "agent", color: Any = RED, radius: float = 0.1, **kwargs: Any) -> Agent:
    return Agent(name=name, shape=Sphere(radius), color=color, **kwargs)


def landmark(shape: Shape, color: Any) -> Landmark:
    return Landmark(name="landmark", shape=shape, color=color)


def place(entity: Agent | Landmark, x: float, y: float, rotation: float = 0.0, env_index: int | None = None) -> None:
    entity.set_pos(torch.tensor([x, y]), batch_index=env_index)
    entity.set_rot(torch.tensor([rotation]), batch_index=env_index)


def at(frame: np.ndarray, x: float, y: float, half_extent: float = 1.0) -> list[int]:
    """The pixel that shows a world position, in a square picture around the origin."""
    pixels_per_unit = frame.shape[0] / (2 * half_extent)
    return frame[int((half_extent - y) * pixels_per_unit), int((half_extent + x) * pixels_per_unit)].tolist()


def test_a_sphere_has_its_color_inside_an_outline_at_its_position() -> None:
    agent = disc()
    env = stage(agent)
    place(agent, 0.4, 0.6)
    frame = render_frame(env, size=SIZE)
    assert frame.shape == (SIZE, SIZE, 3)
    assert frame.dtype == np.uint8
    assert at(frame, 0.4, 0.6) == at(frame, 0.46, 0.6) == at(frame, 0.4, 0.54) == [255, 0, 0]
    assert max(at(frame, 0.495, 0.6)) < 80
    assert at(frame, 0.53, 0.6) == at(frame, 0.4, 0.47) == at(frame, 0.4, -0.6) == WHITE


def test_a_rotated_box_covers_its_own_pixels_only() -> None:
    agent, box = disc(), landmark(Box(length=0.8, width=0.2), GREEN)
    env = stage(agent, box)
    place(agent, -0.8, -0.8)
    place(box, 0.2, -0.1, rotation=np.pi / 6)
    frame = render_frame(env, size=SIZE)
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    for dx, dy in [(0.0, 0.0), (0.38, 0.08), (0.38, -0.08), (-0.38, 0.08), (-0.38, -0.08)]:
        assert at(frame, 0.2 + cos * dx - sin * dy, -0.1 + sin * dx + cos * dy) == [0, 255, 0]
    for dx, dy in [(0.0, 0.13), (0.0, -0.13), (0.43, 0.0), (-0.43, 0.0)]:
        assert at(frame, 0.2 + cos * dx - sin * dy, -0.1 + sin * dx + cos * dy) == WHITE


def test_a_hollow_box_is_only_its_edge() -> None:
    agent, box = disc(), landmark(Box(length=0.8, width=0.8, hollow=True), BLUE)
    env = stage(agent, box)
    place(agent, -0.8, -0.8)
    frame = render_frame(env, size=SIZE)
    assert at(frame, 0.0, 0.0) == at(frame, 0.37, 0.0) == at(frame, 0.41, 0.0) == WHITE
    assert at(frame, 0.395, 0.0) == at(frame, 0.0, -0.395) == [0, 0, 255]


def test_a_line_lies_along_its_rotation() -> None:
    agent, line = disc(), landmark(Line(length=1.0), BLUE)
    env = stage(agent, line)
    place(agent, -0.8, -0.8)
    place(line, 0.0, 0.2, rotation=np.pi / 2)
    frame = render_frame(env, size=3 * SIZE)
    assert at(frame, 0.0, 0.69) == at(frame, 0.0, -0.29) == [0, 0, 255]
    assert at(frame, 0.0, 0.71) == at(frame, 0.0, -0.31) == at(frame, 0.02, 0.2) == WHITE


def test_env_index_picks_position_and_color_of_that_world() -> None:
    agent = disc(color=torch.tensor([RED, GREEN]))
    env = stage(agent)
    place(agent, 0.5, 0.0, env_index=0)
    place(agent, -0.5, 0.0, env_index=1)
    first, second = render_frame(env, 0, SIZE), render_frame(env, 1, SIZE)
    assert at(first, 0.5, 0.0) == [255, 0, 0]
    assert at(second, -0.5, 0.0) == [0, 255, 0]
    assert at(first, -0.5, 0.0) == at(second, 0.5, 0.0) == WHITE


@pytest.mark.parametrize("color", [torch.tensor([0.0, 0.0, 1.0, 0.5]), (0.0, 0.0, 1.0, 0.5)])
def test_a_fourth_color_component_is_opacity(color: Any) -> None:
    agent, zone = disc(), landmark(Sphere(0.3), color)
    env = stage(agent, zone)
    place(agent, -0.8, -0.8)
    assert at(render_frame(env, size=SIZE), 0.0, 0.0) == pytest.approx([127, 127, 255], abs=1)


def test_agents_lie_above_landmarks() -> None:
    agent, zone = disc(), landmark(Sphere(0.3), GREEN)
    frame = render_frame(stage(agent, zone), size=SIZE)
    assert at(frame, 0.0, 0.0) == [255, 0, 0]
    assert at(frame, 0.2, 0.0) == [0, 255, 0]


def test_the_camera_zooms_out_to_fit_every_agent() -> None:
    near, far = disc("near"), disc("far", GREEN)
    env = stage(near, far)
    place(far, -2.8, 1.0)
    frame = render_frame(env, size=SIZE)
    half_extent = 2.8 + 2 * 0.1
    assert at(frame, -2.8, 1.0, half_extent) == [0, 255, 0]
    assert at(frame, 0.0, 0.0, half_extent) == [255, 0, 0]


def test_the_camera_has_the_origin_and_twice_the_zoom_of_the_scenario_as_in_vmas() -> None:
    agent = disc()
    env = stage(agent, view={"render_origin": [3.0, -2.0], "viewer_zoom": 1.5})
    place(agent, 3.5, -3.5)
    assert at(render_frame(env, size=SIZE), 0.5, -1.5, half_extent=1.5**2) == [255, 0, 0]


@pytest.mark.parametrize(
    ("viewer_size", "height", "width"), [((700, 700), 360, 360), ((1600, 700), 158, 360), ((600, 1200), 360, 180)]
)
def test_the_picture_has_the_aspect_of_the_viewer(viewer_size: tuple[int, int], height: int, width: int) -> None:
    env = stage(agent := disc(), view={"viewer_size": viewer_size})
    place(agent, 0.4, 0.3)
    pixels_per_unit = 180 / (max(viewer_size) / min(viewer_size))
    row, column = height / 2 - 0.3 * pixels_per_unit, width / 2 + 0.4 * pixels_per_unit
    assert render_frame(env, size=360)[int(row), int(column)].tolist() == [255, 0, 0]
    for x in np.linspace(0.0, 7.0, 15):
        place(agent, float(x), 0.3)
        assert render_frame(env, size=360).shape == (height, width, 3)


def test_the_boundary_shows_only_limited_sides() -> None:
    env = stage(disc(), world={"x_semidim": 0.5})
    frame = render_frame(env, size=SIZE)
    assert at(frame, 0.495, 0.0) != WHITE
    assert at(frame, -0.495, 0.9) != WHITE
    assert all(at(frame, 0.3, y) == WHITE for y in np.linspace(-0.99, 0.99, 199))


def test_a_boundary_that_the_scenario_hides_is_not_drawn() -> None:
    limits = {"x_semidim": 0.5, "y_semidim": 0.5}
    drawn = render_frame(stage(disc(), world=limits), size=SIZE)
    hidden = render_frame(stage(disc(), world=limits, view={"visualize_semidims": False}), size=SIZE)
    assert at(drawn, 0.3, 0.495) != WHITE
    assert np.array_equal(hidden, render_frame(stage(disc()), size=SIZE))


def test_the_grid_is_drawn_where_the_scenario_asks_for_it() -> None:
    env = stage(disc(), view={"plot_grid": True, "grid_spacing": 0.5})
    frame = render_frame(env, size=SIZE)
    assert at(frame, 0.5, 0.3) != WHITE
    assert at(frame, 0.3, -0.5) != WHITE
    assert at(frame, 0.3, 0.3) == WHITE


def test_only_agents_that_steer_their_rotation_carry_a_heading_mark() -> None:
    steering = disc("steering", GREEN, radius=0.2, dynamics=HolonomicWithRotation())
    dark = disc("dark", BLUE, radius=0.2, dynamics=HolonomicWithRotation())
    pushed = disc("pushed", GREEN, radius=0.2)
    env = stage(steering, dark, pushed)
    place(dark, 0.0, 0.6)
    place(steering, -0.4, 0.0, rotation=np.pi / 2)
    place(pushed, 0.4, 0.0, rotation=np.pi / 2)
    frame = render_frame(env, size=3 * SIZE)
    assert at(frame, -0.4, 0.1) == [20, 20, 20]
    assert at(frame, 0.1, 0.6) == WHITE
    assert at(frame, -0.4, -0.1) == at(frame, -0.3, 0.0) == at(frame, 0.4, 0.1) == [0, 255, 0]


def test_an_entity_that_the_scenario_hides_is_not_drawn() -> None:
    agent, zone = disc(), landmark(Sphere(0.3), GREEN)
    env = stage(agent, zone)
    place(agent, -0.8, -0.8)
    is_rendering: Any = zone.is_rendering
    is_rendering[1] = False
    assert at(render_frame(env, 0, SIZE), 0.0, 0.0) == [0, 255, 0]
    assert at(render_frame(env, 1, SIZE), 0.0, 0.0) == WHITE


def test_lidar_rays_reach_as_far_as_last_measured() -> None:
    agent, wall = disc(), landmark(Box(length=0.1, width=1.0), GREEN)
    env = stage(agent, wall)
    place(agent, 0.0, 0.0, rotation=np.pi)
    place(wall, -0.5, 0.0)
    lidar = Lidar(env.world, n_rays=4, max_range=0.8)
    agent.add_sensor(lidar)
    unmeasured = render_frame(env, size=SIZE)
    lidar.measure()
    measured = render_frame(env, size=SIZE)
    lidar.set_render(False)
    assert at(unmeasured, -0.3, 0.0) == at(unmeasured, 0.7, 0.0) == WHITE
    assert WHITE not in (at(measured, -0.3, 0.0), at(measured, 0.7, 0.0), at(measured, 0.0, -0.7))
    assert at(measured, -0.7, 0.0) == at(measured, 0.85, 0.0) == WHITE
    assert np.array_equal(render_frame(env, size=SIZE), unmeasured)


def everything(env: Environment) -> dict[str, Any]:
    owners: dict[str, Any] = {entity.name: entity for entity in env.world.entities}
    owners |= {f"{agent.name}.lidar": sensor for agent in env.agents for sensor in agent.sensors}
    owners |= {f"{name}.state": entity.state for name, entity in owners.items() if hasattr(entity, "state")}
    owners |= {"env": env, "scenario": env.scenario, "world": env.world}
    return {
        f"{name}.{key}": value.clone() if isinstance(value, torch.Tensor) else value
        for name, owner in owners.items()
        for key, value in vars(owner).items()
    }


def test_rendering_changes_neither_the_environment_nor_random_states() -> None:
    env = make("navigation")
    step(env)
    # A sensor that measured again would now see something else.
    env.agents[0].set_pos(env.agents[1].state.pos + 0.25, batch_index=None)
    before, torch_state, numpy_state = everything(env), torch.get_rng_state(), np.random.get_state(legacy=False)
    render_frame(env, 1)
    after = everything(env)
    assert after.keys() == before.keys()
    for key, value in before.items():
        same = torch.equal(after[key], value) if isinstance(value, torch.Tensor) else after[key] is value
        assert same, key
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state(legacy=False)) == str(numpy_state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env_index": -1}, r"env_index in 0\.\.1, found -1"),
        ({"env_index": 2}, r"env_index in 0\.\.1, found 2"),
        ({"size": 0}, "at least 1 pixel, found 0"),
    ],
)
def test_a_picture_that_cannot_be_is_a_user_error(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render_frame(stage(disc()), **arguments)


def test_a_diverged_simulation_is_a_user_error() -> None:
    agent = disc("runaway")
    env = stage(agent)
    place(agent, float("nan"), 0.0, env_index=0)
    with pytest.raises(UserError, match="finite pose of 'runaway', found x=nan"):
        render_frame(env)
    assert render_frame(env, env_index=1).min() < 255


@pytest.mark.parametrize(
    "scenario",
    ["navigation", "balance", "reverse_transport", "joint_passage", "waterfall", "simple_tag", "simple_push"],
)
def test_shipped_scenarios_show_every_agent_color(scenario: str) -> None:
    env = make(scenario)
    for _ in range(3):
        step(env)
    shown = np.unique(render_frame(env, 1).reshape(-1, 3), axis=0)
    for agent in env.world.agents:
        color = torch.as_tensor(agent.color).expand(2, -1) if len(np.shape(agent.color)) == 1 else agent.color
        assert np.abs(shown - 255 * np.asarray(color[1])).max(axis=-1).min() <= 1, agent.name


def test_no_opengl_is_loaded() -> None:
    script = (
        "import sys; sys.modules['pyglet'] = None\n"
        "import vmas\n"
        "from ctde_kit.envs.vmas.rendering import render_frame\n"
        "env = vmas.make_env('navigation', num_envs=1, seed=0)\n"
        "assert render_frame(env).min() < 255\n"
        "assert 'vmas.simulator.rendering' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
