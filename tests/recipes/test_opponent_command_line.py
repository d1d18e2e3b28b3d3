"""Opponents and loaded groups on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.recipes.command_line import call_here
from tests.recipes.small import SMALL_OVERRIDES

TAG = [
    "task=vmas/simple_tag",
    *(option for option in SMALL_OVERRIDES if "n_agents" not in option),
    "actor.num_cells=[8]",
    "critic.network.num_cells=[8]",
    "anneal_lr=false",
    "total_frames=120",
]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of both groups in ``earlier``."""
    folder = tmp_path_factory.mktemp("runs")
    result = call_here(folder, "mappo", *TAG, "seed=3", "hydra.run.dir=earlier")
    assert result.returncode == 0, result.stderr
    return folder


def weights(folder: Path, run: str, frames: int) -> dict[str, torch.Tensor]:
    path = folder / run / "checkpoints" / f"frames_{frames}.pt"
    return torch.load(path, weights_only=True)["parts"]["policy"]


@pytest.mark.slow
def test_resume_against_a_frozen_group_from_another_directory(earlier: Path, tmp_path: Path) -> None:
    opponent = "opponents.agent=earlier"
    for run, frames in (("whole", 240), ("stopped", 120)):
        options = [*TAG, opponent, "opponents.agent.sampled=true", f"total_frames={frames}", f"hydra.run.dir={run}"]
        result = call_here(earlier, "mappo", *options)
        assert result.returncode == 0, result.stderr
    resumed = call_here(tmp_path, "mappo", f"resume={earlier / 'stopped'}", "total_frames=240")
    assert resumed.returncode == 0, resumed.stderr
    whole, stopped = (weights(earlier, run, 240) for run in ("whole", "stopped"))
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
    before = weights(earlier, "earlier", 120)
    frozen = [name for name in before if name.startswith("module.1.")]
    assert frozen
    assert all(torch.equal(before[name], whole[name.replace("module.1.", "module.1.actor.")]) for name in frozen)
    saved = OmegaConf.load(earlier / "whole" / "config.yaml").opponents.agent
    assert (saved.directory, saved.sampled) == (str(earlier / "earlier"), True)


def test_a_loaded_group_goes_on_against_a_scripted_one(earlier: Path) -> None:
    options = ["opponents.adversary=greedy_chase", "initial.agent=earlier", "lr=1e-9", "hydra.run.dir=further"]
    result = call_here(earlier, "mappo", *TAG, *options)
    assert result.returncode == 0, result.stderr
    before, after = weights(earlier, "earlier", 120), weights(earlier, "further", 120)
    assert not any(name.startswith("module.0.") for name in after)
    for name, value in after.items():
        assert torch.allclose(value, before[name], atol=1e-5), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["opponents.agnet=random"], "opponents.agnet: no such group; vmas/simple_tag has adversary, agent"),
        (["opponents.agent=randm"], "opponents.agent=randm: there is no such directory, nor is it one of greedy_chase"),
        (["opponents.agent=random", "opponents.adversary=greedy_chase"], "nothing is left to train"),
        (["-m", "opponents.agent=random,earlier"], "scripted policies and runs cannot be swept together"),
        (["initial.agent=nowhere"], "initial.agent=nowhere: there is no such directory"),
        (["opponents.agent=earlier", "task.params.num_adversaries=2"], "does not fit group 'agent'"),
        (["opponents.agent=earlier", "opponents.agent.sampeld=true"], "Key 'sampeld' not in"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str, earlier: Path) -> None:
    result = call_here(earlier, "mappo", *TAG, *arguments, "hydra.run.dir=never")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr
    assert not (earlier / "never").exists()
