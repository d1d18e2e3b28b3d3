"""EPyMARL's ``ParallelRunner`` on level-based foraging, to be timed by ``worker_speed`` beside the kit's collector.

It needs a checkout of https://github.com/uoe-agents/epymarl, whose folder the environment variable ``EPYMARL`` names.
The runner is theirs as it is, with their environment wrapper, agent (two layers of 64), epsilon-greedy selection and
episode batch; what they import for other environments (``smaclite``) is an empty module.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

VARIABLE = "EPYMARL"


def epymarl_rollouts(env: str, n_envs: int, steps: int) -> Callable[[], int]:
    """A function that collects one episode of ``n_envs`` environments, and returns its frames."""
    folder = os.environ.get(VARIABLE)
    if folder is None or not (Path(folder) / "src" / "runners").is_dir():
        raise SystemExit(f"{VARIABLE}: expected the folder of a checkout of EPyMARL, found {folder}")
    sys.path.insert(0, str(Path(folder) / "src"))
    # As in their own programs on Linux; TorchRL makes another one the default.
    multiprocessing.set_start_method("fork", force=True)
    sys.modules["smaclite"] = ModuleType("smaclite")
    # Before the fork: it registers thousands of environments, which 16 processes would all do again.
    import lbforaging  # noqa: F401  # pyright: ignore[reportUnusedImport]
    from components.transforms import OneHot  # pyright: ignore[reportMissingImports]
    from controllers.basic_controller import BasicMAC  # pyright: ignore[reportMissingImports]
    from runners.parallel_runner import ParallelRunner  # pyright: ignore[reportMissingImports]

    options = _options(env, n_envs, steps)
    runner = ParallelRunner(options, logger=None)
    told = runner.get_env_info()
    options.n_agents, options.n_actions = told["n_agents"], told["n_actions"]
    scheme = {
        "state": {"vshape": told["state_shape"]},
        "obs": {"vshape": told["obs_shape"], "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": torch.long},
        "avail_actions": {"vshape": (told["n_actions"],), "group": "agents", "dtype": torch.int},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
        "reward": {"vshape": (1,)},
    }
    preprocess = {"actions": ("actions_onehot", [OneHot(out_dim=told["n_actions"])])}
    # Their replay buffer adds this entry and the next one to what the controller sees of the scheme.
    seen = {
        **scheme,
        "filled": {"vshape": (1,), "dtype": torch.long},
        "actions_onehot": {"vshape": (told["n_actions"],), "group": "agents", "dtype": torch.float32},
    }
    groups = {"agents": told["n_agents"]}
    runner.setup(scheme=scheme, groups=groups, preprocess=preprocess, mac=BasicMAC(seen, groups, options))

    @torch.no_grad()
    def rollout() -> int:
        runner.run(test_mode=False)
        return runner.env_steps_this_run

    return rollout


def _options(env: str, n_envs: int, steps: int) -> SimpleNamespace:
    """Their defaults for QMIX, with ``n_envs`` environments and without their log."""
    return SimpleNamespace(
        env="gymma",
        env_args={"key": f"lbforaging:{env}", "time_limit": steps, "pretrained_wrapper": None, "seed": 0},
        batch_size_run=n_envs,
        common_reward=True,
        reward_scalarisation="sum",
        device="cpu",
        render=False,
        runner_log_interval=float("inf"),
        test_nepisode=n_envs,
        agent="rnn",
        use_rnn=False,
        hidden_dim=64,
        obs_agent_id=True,
        obs_last_action=False,
        agent_output_type="q",
        action_selector="epsilon_greedy",
        epsilon_start=1.0,
        epsilon_finish=0.05,
        epsilon_anneal_time=50_000,
        evaluation_epsilon=0.0,
    )
