"""ctde export: files that act as the run's own policy does, in other programs, too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules.export.greedy_step import GreedyStep
from ctde_kit.recipes import MLPNetwork, RandomOpponent, ValueCriticConfig, VmasTask, load
from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.configs.policy_options import ExportConfig
from ctde_kit.recipes.wiring.evaluating import EVALUATION_SEED
from ctde_kit.recipes.wiring.export_parity import compare, record
from ctde_kit.recipes.wiring.saved_policies import set_stage
from ctde_kit.recipes.wiring.saved_runs import SavedRun
from ctde_kit.training import evaluate
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.small import NORMALIZED, network, shared_config, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_q import small_q_config
from tests.recipes.test_evaluate_command import foraging, tag

LONGER = VmasTask("vmas/navigation", n_envs=6, max_steps=40, params={"n_agents": 2, "shared_rew": False})
CONFIGS = {
    "navigation": lambda: small_config("gru", task=LONGER, **NORMALIZED),
    "one_network": lambda: shared_config("gru", task=LONGER, **NORMALIZED),
    "lbf": lambda: small_config("gru", task=foraging(), total_frames=60),
    "qmix": lambda: small_q_config("gru", "sequences", task=foraging(), last_action=True, total_frames=120),
    "maddpg": lambda: small_maddpg_config(ensemble_size=2),
    "own": lambda: small_config(
        actor=MLPNetwork(num_cells=[8], share_params=False, normalize=True), total_frames=120, **NORMALIZED
    ),
    "tag": lambda: small_config(task=tag(), opponents={"agent": RandomOpponent()}, total_frames=60),
    "talk": lambda: small_config(
        actor=network("commnet"), critic=ValueCriticConfig(network=network("mlp")), total_frames=60
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, config in CONFIGS.items():
        start(config(), folder / name)
    return folder


def exported(folder: Path, run: str, form: str) -> dict[str, Any]:
    directory = folder / run / f"export_{form}"
    if not directory.exists():
        result = call_here(folder, "export", run, f"format={form}")
        assert result.returncode == 0, result.stderr
        assert "in 1" in result.stdout  # 1,000 observations and more
    return json.loads((directory / "model.json").read_text())


def example(directory: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("example", directory / "example.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("run", "form"),
    [
        ("navigation", "onnx"),
        ("one_network", "onnx"),
        pytest.param("lbf", "onnx", marks=pytest.mark.slow),
        pytest.param("qmix", "onnx", marks=pytest.mark.slow),
        pytest.param("maddpg", "pt2", marks=pytest.mark.slow),
    ],
)
def test_what_is_exported_says_what_goes_in_and_out(run: str, form: str, runs: Path) -> None:
    content = exported(runs, run, form)
    (model,) = content["models"]
    inputs = {
        "navigation": ["observation", "hidden"],
        "one_network": ["observation", "hidden"],
        "lbf": ["observation", "action_mask", "hidden"],
        "qmix": ["observation", "action_mask", "last_action", "hidden"],
        "maddpg": ["observation", "sub_policy"],
    }
    assert [port["name"] for port in model["inputs"]] == inputs[run]
    assert [entry["agent"] for entry in model["agents"]] == list(range(len(model["agents"])))
    if run in ("navigation", "maddpg"):
        assert (model["action"]["low"], model["action"]["high"]) == ([-1.0, -1.0], [1.0, 1.0])
        assert "forces along x and y" in model["action"]["meaning"]
    # Another program needs nothing of the kit.
    program = (runs / run / f"export_{form}" / "example.py").read_text()
    assert "ctde_kit" not in program
    result = subprocess.run(
        [sys.executable, runs / run / f"export_{form}" / "example.py"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_closed_loop_in_numpy_earns_what_the_run_earns(runs: Path) -> None:
    """100 episodes of navigation: VMAS's own simulator, numpy and onnxruntime."""
    exported(runs, "navigation", "onnx")
    act = example(runs / "navigation" / "export_onnx").act
    env = LONGER.build(seed=EVALUATION_SEED, device="cpu", n_envs=100)
    env.set_seed(EVALUATION_SEED)
    observations = [agent.numpy() for agent in env.reset()["agents", "observation"].unbind(1)]
    returns, running = np.zeros((100, 2)), np.ones(100, dtype=bool)
    for _ in range(40):
        actions = act(observation=np.concatenate(observations))
        observed, rewards, done, _ = env.simulation.world.step(
            [torch.from_numpy(part) for part in np.split(actions, 2)]
        )
        observations = [agent.numpy() for agent in observed]
        returns += running[:, None] * np.stack([reward.numpy() for reward in rewards], 1)
        running &= ~done.numpy()
    loaded = load(runs / "navigation")
    stage = set_stage(SavedRun(runs / "navigation"), LONGER, ExportConfig(episodes=100))
    kit = evaluate(stage.env, loaded.policy, ["agents"], episodes=100, seed=EVALUATION_SEED).by_group["agents"]
    assert kit.std() > 0.01
    assert abs(returns.mean() - kit.mean().item()) < 0.01
    np.testing.assert_allclose(returns, kit.numpy(), atol=1e-3)


def test_agents_with_parameters_of_their_own_have_files_of_their_own(runs: Path) -> None:
    content = exported(runs, "own", "pt2")
    assert [model["file"] for model in content["models"]] == ["agents_0.pt2", "agents_1.pt2"]
    assert [model["agents"] for model in content["models"]] == [
        [{"group": "agents", "agent": 0}],
        [{"group": "agents", "agent": 1}],
    ]


@pytest.mark.slow
def test_opponents_that_are_scripts_are_left_out(runs: Path) -> None:
    assert [model["file"] for model in exported(runs, "tag", "pt2")["models"]] == ["adversary.pt2"]


class Worse(nn.Module):
    """A policy whose actions are off by a little."""

    def __init__(self, step: GreedyStep):
        super().__init__()
        self.step = step

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        action, *carried = self.step(*tensors)
        return (action + 1e-4 if action.is_floating_point() else (action + 1) % 6), *carried


@pytest.mark.parametrize("run", ["navigation", "one_network", pytest.param("lbf", marks=pytest.mark.slow)])
def test_the_parity_check_finds_what_differs(run: str, runs: Path) -> None:
    saved = SavedRun(runs / run)
    stage = set_stage(saved, saved.task, ExportConfig())
    step = GreedyStep(stage.policy.actors["agents"], 1)
    recorded = record(stage)
    stage.env.close()
    same = compare(recorded, step, step, 1)
    assert same.observations >= 1_000
    assert same.difference <= 1e-6
    with pytest.raises(UserError, match="agent 1 differs from the run's policy by"):
        compare(recorded, step, Worse(step), 1).check("agent 1")
    forgetful = compare(recorded, step, lambda *given: (step(*given)[0], torch.zeros_like(given[-1])), 1)
    assert forgetful.difference > 1e-5 or run == "lbf"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the directory of a run"),
        (["nowhere"], "nowhere: there is no such directory"),
        (["navigation", "lbf"], "expected one run, found 2"),
        (["navigation", "format=tflite"], "format=tflite: expected one of onnx, pt2"),
        (["navigation", "policy=random"], "policy=random: expected one of greedy"),
        (["talk"], "export: group 'agents': this network (MultiAgentCommNet) hears other agents' data"),
        (["navigation", "output=navigation"], "output=navigation: it exists already"),
        (["navigation", "output=/proc/nothing", "format=pt2"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, runs: Path) -> None:
    assert_one_line(call_here(runs, "export", *arguments), message, program="ctde export")


def test_without_onnx_the_extra_is_named(runs: Path) -> None:
    with mock.patch.dict(sys.modules, {"onnxscript": None}):
        result = call_here(runs, "export", "navigation", "output=never")
    assert_one_line(result, 'pip install "ctde-kit[onnx]"', program="ctde export")
    assert not (runs / "never").exists()
