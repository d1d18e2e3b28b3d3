"""Trains BenchMARL on a VMAS task: the program that ``benchmarl_runs`` starts with the Python that has BenchMARL.

It imports nothing of this project. Standard output has a line of JSON per iteration: ``frames`` and ``seconds`` since
the start, and ``return``, the mean of the training episodes that ended in it, over agents, null where none ended.
Greedy evaluations go to a file in marl-eval's format, if asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarl.algorithms import (  # pyright: ignore[reportMissingImports]
    MaddpgConfig,
    MappoConfig,
    MasacConfig,
    QmixConfig,
)
from benchmarl.environments import VmasTask  # pyright: ignore[reportMissingImports]
from benchmarl.experiment import (  # pyright: ignore[reportMissingImports]
    Callback,
    Experiment,
    ExperimentConfig,
)
from benchmarl.models.gru import GruConfig  # pyright: ignore[reportMissingImports]
from benchmarl.models.mlp import MlpConfig  # pyright: ignore[reportMissingImports]

ALGORITHMS = {"mappo": MappoConfig, "qmix": QmixConfig, "maddpg": MaddpgConfig, "masac": MasacConfig}


class Rows(Callback):  # pyright: ignore[reportUntypedBaseClass]
    """Prints a line per iteration, before its updates."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.perf_counter()

    def on_batch_collected(self, batch: Any) -> None:
        """Print the frames so far, the seconds, and the mean return of the episodes that ended."""
        returns = batch["next", "agents", "episode_reward"].mean(-2)
        ended = returns[batch["next", "done"].expand_as(returns)]
        row = {
            "frames": self.experiment.total_frames,
            "seconds": time.perf_counter() - self.started,
            "return": ended.mean().item() if ended.numel() else None,
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    """Train what the command line says."""
    options = _options()
    torch.set_num_threads(options.threads)
    config = _config(options)
    model = _model(options)
    experiment = Experiment(
        task=getattr(VmasTask, options.task.upper()).get_from_yaml(),
        algorithm_config=ALGORITHMS[options.algorithm].get_from_yaml(),
        model_config=model,
        critic_model_config=model,
        seed=options.seed,
        config=config,
        callbacks=[Rows()],
    )
    started = time.perf_counter()
    experiment.run()
    if options.output is not None:
        (written,) = Path(config.save_folder).rglob("*.json")
        options.output.write_text(written.read_text())
    print(json.dumps({"total_seconds": time.perf_counter() - started}), flush=True)
    os._exit(0)  # its collector can hang at exit


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("task", help="a task of its VMAS suite, such as navigation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--n_envs", type=int, default=60)
    parser.add_argument("--frames_per_batch", type=int, default=6000)
    parser.add_argument("--num_cells", default="[256, 256]", help="as JSON")
    parser.add_argument("--gru", type=int, help="hidden size of a GRU, whose perceptron has num_cells; none by default")
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--epochs", type=int, default=10, help="on-policy")
    parser.add_argument("--minibatch_frames", type=int, default=400, help="on-policy")
    parser.add_argument("--updates", type=int, default=1000, help="off-policy, per iteration")
    parser.add_argument("--batch_size", type=int, default=128, help="off-policy, in frames")
    parser.add_argument("--epsilon_frames", type=int, help="frames of annealed exploration; by default half of all")
    parser.add_argument("--evaluate_every", type=int, help="frames between greedy evaluations; never by default")
    parser.add_argument("--episodes", type=int, default=200, help="per evaluation")
    parser.add_argument("--output", type=Path, help="where the evaluations go")
    return parser.parse_args()


def _model(options: argparse.Namespace) -> Any:
    if options.gru is None:
        model = MlpConfig.get_from_yaml()
        model.num_cells = json.loads(options.num_cells)
    else:
        model = GruConfig.get_from_yaml()
        model.hidden_size, model.mlp_num_cells = options.gru, json.loads(options.num_cells)
    return model


def _config(options: argparse.Namespace) -> Any:
    config = ExperimentConfig.get_from_yaml()
    config.max_n_iters, config.max_n_frames = options.iterations, None
    config.lr, config.gamma = options.lr, options.gamma
    config.prefer_continuous_actions = options.algorithm != "qmix"
    config.on_policy_n_envs_per_worker = config.off_policy_n_envs_per_worker = options.n_envs
    config.on_policy_collected_frames_per_batch = options.frames_per_batch
    config.off_policy_collected_frames_per_batch = options.frames_per_batch
    config.on_policy_n_minibatch_iters = options.epochs
    config.on_policy_minibatch_size = options.minibatch_frames
    config.off_policy_n_optimizer_steps = options.updates
    config.off_policy_train_batch_size = options.batch_size
    half = options.iterations * options.frames_per_batch // 2
    config.exploration_anneal_frames = options.epsilon_frames or half
    config.loggers, config.render, config.save_folder = [], False, tempfile.mkdtemp()
    config.evaluation = config.create_json = options.evaluate_every is not None
    if config.evaluation:
        config.evaluation_interval, config.evaluation_episodes = options.evaluate_every, options.episodes
    return config


if __name__ == "__main__":
    main()
