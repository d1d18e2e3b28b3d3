"""ctde watch: the best, median and worst of many episodes, as a video."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from ctde_kit.recipes import AttentionCriticConfig, MatrixTask, PettingZooTask, VmasTask
from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.commands.watch import videos
from ctde_kit.recipes.configs.policy_options import WatchConfig
from ctde_kit.recipes.wiring.saved_policies import Stage, set_stage
from ctde_kit.recipes.wiring.saved_runs import SavedRun
from ctde_kit.training import evaluate
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.small import network, small_config
from tests.recipes.test_code_errors import OWN
from tests.recipes.test_evaluate_command import foraging

CONFIGS = {
    "navigation": lambda: small_config("gru", total_frames=60),
    "lbf": lambda: small_config(task=foraging(), total_frames=60),
    "pettingzoo": lambda: small_config(
        task=PettingZooTask(n_envs=2, n_workers=1, max_steps=6), frames_per_batch=60, total_frames=60
    ),
    "talk": lambda: small_config(actor=network("tarmac"), critic=AttentionCriticConfig(), total_frames=60),
    "bicnet": lambda: small_config(actor=network("bicnet gru"), total_frames=60),
    "matrix": lambda: small_config(task=MatrixTask(), frames_per_batch=64, total_frames=64),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, config in CONFIGS.items():
        start(config(), folder / name)
    return folder


def staged(runs: Path, name: str, **options: object) -> tuple[Stage, WatchConfig]:
    run, config = SavedRun(runs / name), WatchConfig(**{"episodes": 6, **options})
    return set_stage(run, run.task, config, rendered=True), config


@pytest.mark.parametrize("name", ["navigation", "lbf"])
def test_the_episodes_shown_are_the_best_median_and_worst(name: str, runs: Path) -> None:
    stage, config = staged(runs, name)
    found = videos(stage, config)
    returns = evaluate(stage.env, stage.policy, ["agents"], episodes=6, seed=stage.seed)
    stage.env.close()
    means = returns.by_group["agents"].mean(-1).sort().values.tolist()
    places = {"best": len(means) - 1, "median": (len(means) - 1) // 2, "worst": 0}
    assert list(found) == [f"{n} of {len(means)}: return {means[p]:.2f}" for n, p in places.items()]
    assert returns.lengths is not None
    lengths = returns.lengths[returns.by_group["agents"].mean(-1).argsort(stable=True)].tolist()
    # From the first state to the last.
    assert [len(frames) for frames in found.values()] == [lengths[p] + 1 for p in places.values()]


def test_a_later_episode_of_an_env_is_found_again(runs: Path) -> None:
    """Two envs play six episodes: number 5 is the third of the second."""
    stage, config = staged(runs, "pettingzoo", show=["5", "1"])
    (late, early) = videos(stage, config).values()
    drawn = []
    with torch.no_grad():
        stage.env.set_seed(stage.seed)
        root = stage.env.reset()
        for t in range(18):
            if t == 12:
                drawn.append(stage.env.base_env.render_frame(1))
            _, root = stage.env.step_and_maybe_reset(stage.policy(root))
    stage.env.close()
    assert [len(late), len(early)] == [7, 7]
    assert np.array_equal(late[0], drawn[0])
    assert not np.array_equal(early[0], late[0])


def test_attention_and_listening_stand_beside_the_frames(runs: Path) -> None:
    stage, config = staged(runs, "talk", show=["best"])
    (frames,) = videos(stage, config).values()
    # The world, the critic's attention, and whom agents listen to: each 0.7 of the height.
    assert {frame.shape for frame in frames} == {(480, 480 + 2 * 336, 3)}
    assert not np.array_equal(frames[0][:, 480:816], frames[0][:, 816:])


def test_who_is_moved_by_whom_stands_beside_the_frames(runs: Path) -> None:
    stage, config = staged(runs, "bicnet", show=["best", "worst"])
    shown = videos(stage, config)
    assert [title.partition(" ")[0] for title in shown] == ["best", "worst"]
    for frames in shown.values():
        assert {frame.shape for frame in frames} == {(480, 480 + 336, 3)}
        # It changes from step to step.
        assert not np.array_equal(frames[0][:, 480:], frames[-1][:, 480:])


def test_gif_and_mp4_have_the_same_frames(runs: Path) -> None:
    for suffix in ("gif", "mp4"):
        result = call_here(runs, "watch", "navigation", "episodes=4", "height=101", f"output=video.{suffix}")
        assert result.returncode == 0, result.stderr
    film = imageio.imread(runs / "video.mp4")
    with Image.open(runs / "video.gif") as gif:
        assert gif.size == (3 * 101 + 2 * 6, 101 + 24)
        first = np.asarray(gif.convert("RGB"))
        duration = 0
        for index in range(getattr(gif, "n_frames", 1)):
            gif.seek(index)
            duration += gif.info["duration"]
    assert film.shape == (round(duration * 15 / 1000), 126, 316, 3)  # H.264 wants even sides
    assert np.abs(film[0, :125, :315].astype(int) - first).mean() < 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the directory of a run"),
        (["nowhere"], "nowhere: there is no such directory"),
        (["navigation", "lbf"], "expected one run, found 2"),
        (["matrix"], "matrix/climbing has no renderer"),
        (["navigation", "output=x.avi"], "output=x.avi: expected a file that ends with .gif or .mp4"),
        (["navigation", "show=[tallest]"], "show=tallest: expected best, median, worst"),
        (["navigation", "show=[99]", "episodes=4"], "show=99: expected the number of one of 4 episodes"),
        (["navigation", "height=3"], "height=3: expected 40 to 2000 pixels"),
        (["navigation", "frames_per_second=0"], "frames_per_second=0.0: expected 1 to 50"),
        (["navigation", "output=/proc/x.gif", "episodes=2"], "cannot be written"),
        (["navigation", "task=vmas/simple_tag"], "has no policy for group 'adversary'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, runs: Path) -> None:
    assert_one_line(call_here(runs, "watch", *arguments), message, program="ctde watch")


TAKES_A_MODE = """
class Drawn(Gather):
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Gather", "gather.py:Gather: to be drawn, the environment must take render_mode in its __init__ (or in the"),
        ("Drawn", "render: the environment draws nothing; expected one that is built with render_mode='rgb_array' and"),
    ],
)
def test_own_environments_that_cannot_be_drawn_are_told_how(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "gather.py").write_text(OWN + TAKES_A_MODE)
    own = [f"task=pettingzoo/gather.py:{name}", "task.max_steps=5", "task.n_workers=1", "task.n_envs=2"]
    sizes = ["total_frames=20", "frames_per_batch=20", "minibatch_frames=20", "evaluation.episodes=2", "device=cpu"]
    refused = call_here(tmp_path, "mappo", *own, *sizes, "video=true", "hydra.run.dir=never")
    assert_one_line(refused, message, program="ctde-mappo")
    assert "train" not in refused.stdout
    ended = call_here(tmp_path, "mappo", *own, *sizes, "critic=attention", "hydra.run.dir=run")
    assert ended.returncode == 0, ended.stderr
    assert_one_line(call_here(tmp_path, "watch", "run", "trust=true"), message, program="ctde watch")


def test_without_the_writer_of_films_the_extra_is_named(runs: Path) -> None:
    with mock.patch.dict(sys.modules, {"imageio_ffmpeg": None}):
        result = call_here(runs, "watch", "navigation", "output=never.mp4")
    assert_one_line(result, 'pip install "ctde-kit[video]"', program="ctde watch")


def test_the_command_does_not_need_a_video_of_its_own(runs: Path) -> None:
    """A training run with workers can be filmed, too."""
    task = VmasTask("vmas/navigation", n_envs=6, max_steps=7)
    start(small_config(task=task, total_frames=60, video=True), runs / "vmas_film")
    start(
        small_config(
            task=PettingZooTask(n_envs=2, n_workers=1, max_steps=6), frames_per_batch=60, total_frames=60, video=True
        ),
        runs / "film",
    )
    assert (runs / "film" / "videos" / "greedy_episode.gif").stat().st_size > 1_000
