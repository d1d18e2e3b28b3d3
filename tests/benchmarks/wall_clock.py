"""Learning beside BenchMARL's, by the clock: ``python -m tests.benchmarks.wall_clock qmix|maddpg``.

``BENCHMARL_PYTHON`` names a python that has BenchMARL 1.5.2. Its one seed and our seeds run in turn on ``navigation``,
one thread each, evaluation of BenchMARL off; ours is counted with its evaluations. Results go to
docs/results/wall_clock_ALGORITHM.json, learning curves where ``tests.learning.measure`` puts them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from tests.benchmarks.training import ROOT
from tests.learning.experiments import EXPERIMENTS
from tests.learning.measure import run_experiment

ITERATIONS, FRAMES = 40, 6_000
EXPERIMENT = {"qmix": "qmix_navigation", "maddpg": "maddpg_navigation"}
BENCHMARL = """
import os, sys, tempfile, time, torch
from benchmarl.algorithms import MaddpgConfig, QmixConfig
from benchmarl.environments import VmasTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
algorithm, iterations = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
started = time.perf_counter()
class Curve(Callback):
    def on_batch_collected(self, batch):
        returns = batch["next", "agents", "episode_reward"].mean(-2)
        mean = returns[batch["next", "done"].expand_as(returns)].mean().item()
        print("row", self.experiment.total_frames, time.perf_counter() - started, mean, flush=True)
config = ExperimentConfig.get_from_yaml()
config.max_n_iters, config.max_n_frames = iterations, None
config.lr, config.gamma = 3e-4, 0.9
config.evaluation = config.render = config.create_json = False
config.loggers, config.save_folder = [], tempfile.mkdtemp()
config.off_policy_n_envs_per_worker, config.off_policy_collected_frames_per_batch = 60, 6000
config.off_policy_n_optimizer_steps, config.off_policy_train_batch_size = 1000, 128
config.exploration_anneal_frames = iterations * 6000 // 2
config.prefer_continuous_actions = algorithm == "maddpg"
model = MlpConfig.get_from_yaml()
model.num_cells = [256, 256]
algorithms = {"maddpg": MaddpgConfig, "qmix": QmixConfig}
Experiment(task=VmasTask.NAVIGATION.get_from_yaml(), algorithm_config=algorithms[algorithm].get_from_yaml(),
    model_config=model, critic_model_config=model, seed=0, config=config, callbacks=[Curve()]).run()
print("seconds", time.perf_counter() - started, flush=True)
os._exit(0)
"""


def benchmarl(algorithm: str) -> dict[str, object]:
    """Its seconds, and ``[frames, seconds, mean return of training episodes]`` an iteration."""
    command = [os.environ["BENCHMARL_PYTHON"], "-W", "ignore", "-c", BENCHMARL, algorithm, str(ITERATIONS)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = re.search(r"^seconds (\S+)$", run.stdout, re.MULTILINE)
    if seconds is None:
        raise RuntimeError(run.stderr[-2000:])
    rows = [[float(x) for x in line.split()[1:]] for line in run.stdout.splitlines() if line.startswith("row ")]
    return {"frames": ITERATIONS * FRAMES, "seconds": round(float(seconds[1])), "rows": rows}


def main() -> None:
    """Run both and keep how long they took."""
    os.environ["OMP_NUM_THREADS"] = "1"
    (algorithm,) = sys.argv[1:]
    name = EXPERIMENT[algorithm]
    theirs = benchmarl(algorithm)
    print("BenchMARL", theirs["seconds"], "s", theirs["rows"][-1], flush=True)  # type: ignore[index]
    ours = run_experiment(name, EXPERIMENTS[name], ROOT / "runs" / "experiments")
    result = {
        "benchmarl": theirs,
        "ours": {key: ours[key] for key in ("command", "seconds", "figures", "seeds", "machine", "date")},
        "ratio_a_frame": round(
            (theirs["seconds"] / theirs["frames"])  # type: ignore[operator]
            / (max(ours["seconds"]) / ours["config"]["total_frames"]),
            2,
        ),
    }
    target = ROOT / "docs" / "results" / f"wall_clock_{algorithm}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(result["ours"], result["ratio_a_frame"])


if __name__ == "__main__":
    main()
