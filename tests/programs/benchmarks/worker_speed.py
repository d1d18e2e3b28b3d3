"""Time rollouts of PettingZoo environments in worker processes beside the environments alone, and beside TorchRL.

Run ``python -m tests.programs.benchmarks.worker_speed`` on an idle machine.

16 environments, rollouts of 50 steps, MPE2's ``simple_spread`` and level-based foraging 8x8, in one and in two
processes:

- ``environments alone``: each process steps and resets its share of them with random allowed actions and asks for
  their state, and nothing else; in the same view of them that workers step (``as_parallel``, the fastest);
- ``worker env``: the kit's env is stepped with random allowed actions, and nobody reads what it gives;
- ``collector, compile=on`` and ``compile=off``: with a policy, an MLP of two layers of 64;
- ``TorchRL's ParallelEnv``: the same policy and number of processes, in each a ``SerialEnv`` of ``PettingZooWrapper``
  with a ``StepCounter`` for the time limit. Where an episode ends at the end of a rollout, all are reset. Two rollouts
  per round are timed, since each takes seconds;
- ``EPyMARL's ParallelRunner``: in foraging, where the environment variable ``EPYMARL`` names a checkout of it, with a
  process for each of its 16 environments, as it must have; beside it the kit's collector with as many.

The programs run in turn, each in its own process. A round's figure is the median of all rollouts but the
first two. Tasks may be named. Results go to docs/results/worker_speed.json.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tests.programs.benchmarks.epymarl_runner import VARIABLE, epymarl_rollouts
from tests.programs.benchmarks.training_speed import ROOT, seconds_of_iterations
from tests.programs.learning.measure import machine

RESULTS = ROOT / "docs" / "results" / "worker_speed.json"
N_ENVS, STEPS = 16, 50
ROUNDS, ITERATIONS, WARMUP = 3, 12, 2


def spread() -> Any:
    """MPE2's simple_spread, discrete actions, episodes of 25 steps."""
    from mpe2 import simple_spread_v3

    return simple_spread_v3.parallel_env()


def foraging() -> Any:
    """Level-based foraging 8x8 of two players and two foods."""
    from ctde_kit.envs.lbf import lbf_parallel_env

    return lbf_parallel_env("Foraging-8x8-2p-2f-coop-v3")


FACTORIES: dict[str, Callable[[], Any]] = {"simple_spread": spread, "foraging": foraging}
LIMITS = {"simple_spread": 25, "foraging": 50}


def _timed(rollout: Callable[[], int | object], iterations: int = ITERATIONS) -> None:
    for _ in range(WARMUP + iterations):
        started = time.perf_counter()
        frames = rollout()
        share = frames / (N_ENVS * STEPS) if isinstance(frames, int) else 1
        print("iteration", (time.perf_counter() - started) / share, flush=True)


def alone(task: str, n_workers: int) -> None:
    """The environments alone: each process has its share; all begin a rollout together."""
    context = multiprocessing.get_context("fork")
    begin, end = context.Barrier(n_workers + 1), context.Barrier(n_workers + 1)
    shares = [N_ENVS // n_workers] * n_workers
    for share in shares:
        context.Process(target=_step_alone, args=(task, share, begin, end), daemon=True).start()

    def rollout() -> None:
        begin.wait()
        end.wait()

    _timed(rollout)


def _step_alone(task: str, n_envs: int, begin: Any, end: Any) -> None:
    from ctde_kit.envs.pettingzoo import as_parallel

    envs = [as_parallel(FACTORIES[task]()) for _ in range(n_envs)]
    steps, random = [0] * n_envs, np.random.default_rng(0)
    infos = [env.reset(seed=seed)[1] for seed, env in enumerate(envs)]
    n_actions = envs[0].action_space(envs[0].possible_agents[0]).n
    orders = [random.permutation(n_actions).tolist() for _ in range(101)]
    while True:
        begin.wait()
        for t in range(STEPS):
            for index, env in enumerate(envs):
                chosen = {
                    agent: _first_allowed(orders[(7 * t + 31 * index + 3 * number) % len(orders)], infos[index][agent])
                    for number, agent in enumerate(env.agents)
                }
                *_, infos[index] = env.step(chosen)
                env.state()
                steps[index] += 1
                if not env.agents or steps[index] == LIMITS[task]:
                    infos[index], steps[index] = env.reset()[1], 0
        end.wait()


def _first_allowed(order: list[int], info: dict[str, Any]) -> int:
    mask = info.get("action_mask")
    return order[0] if mask is None else next(action for action in order if mask[action])


def _worker_env(task: str, n_workers: int) -> Any:
    from ctde_kit.envs.workers import worker_env

    return worker_env(FACTORIES[task], n_envs=N_ENVS, n_workers=n_workers, max_steps=LIMITS[task], seed=0)


def _policy(env: Any) -> Any:
    from ctde_kit.modules import MultiAgentActor, MultiAgentMLP, TeamPolicy, own_observation
    from ctde_kit.specs import TeamSpec

    group = TeamSpec.from_env(env).groups[0]
    inputs = own_observation(group)
    network = MultiAgentMLP(inputs.features, group.action.n_parameters, group.n_agents, num_cells=[64, 64])
    return TeamPolicy({group.name: MultiAgentActor(group, inputs, network)})


def worker(task: str, n_workers: int) -> None:
    """The kit's env with random allowed actions."""
    import torch

    from ctde_kit.keys import GroupKeys

    env = _worker_env(task, n_workers)
    env.reset()
    keys = GroupKeys(*env.group_map)
    masks = env.outcome.now.get(keys.action_mask, None)
    noise = torch.rand(STEPS, *env.full_action_spec[keys.action].shape, env.full_action_spec[keys.action].space.n)

    def rollout() -> None:
        for t in range(STEPS):
            allowed = noise[t] if masks is None else noise[t] * masks
            env.begin_step({keys.action: allowed.argmax(-1)})
            env.finish_step()

    _timed(rollout)
    env.close()


def collector(task: str, n_workers: int, *, compile: bool) -> None:
    """The kit's collector."""
    from ctde_kit.collectors import RolloutCollector

    env = _worker_env(task, n_workers)
    collects = RolloutCollector(env, _policy(env), frames_per_batch=N_ENVS * STEPS, compile=compile)
    _timed(collects.rollout)
    assert collects.compile is compile
    env.close()


def torchrl(task: str, n_workers: int) -> None:
    """TorchRL's ParallelEnv with the same policy."""
    import torch
    from torchrl.envs import ParallelEnv, PettingZooWrapper, SerialEnv, StepCounter, TransformedEnv
    from torchrl.envs.utils import ExplorationType, set_exploration_type

    like = _worker_env(task, 1)
    policy, group_map = _policy(like), like.group_map
    like.close()

    def one() -> Any:
        options = {"use_mask": True, "categorical_actions": True, "done_on_any": False, "group_map": group_map}
        return TransformedEnv(PettingZooWrapper(FACTORIES[task](), **options), StepCounter(max_steps=LIMITS[task]))

    env = ParallelEnv(n_workers, partial(SerialEnv, N_ENVS // n_workers, one))
    root = env.reset()

    @torch.no_grad()
    def rollout() -> None:
        nonlocal root
        with set_exploration_type(ExplorationType.RANDOM):
            batch = env.rollout(STEPS, policy, auto_reset=False, tensordict=root, break_when_any_done=False)
        root = env.step_mdp(batch[..., -1]) if not batch["next", "done"][..., -1, :].any() else env.reset()

    _timed(rollout, 2)
    env.close()


def epymarl(task: str, n_workers: int) -> None:
    """EPyMARL's runner, whose episodes may end before the time limit."""
    assert (task, n_workers) == ("foraging", N_ENVS)
    _timed(epymarl_rollouts("Foraging-8x8-2p-2f-coop-v3", N_ENVS, STEPS))


EPYMARL = "EPyMARL's ParallelRunner"
PROGRAMS: dict[str, Callable[[str, int], None]] = {
    "environments alone": alone,
    "worker env": worker,
    "collector, compile=on": partial(collector, compile=True),
    "collector, compile=off": partial(collector, compile=False),
    "TorchRL's ParallelEnv": torchrl,
    EPYMARL: epymarl,
}
A_PROCESS_EACH = ["collector, compile=on", EPYMARL]
ANY_NUMBER = [program for program in PROGRAMS if program != EPYMARL]


def settings(tasks: Iterable[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Each task, number of processes, and the programs to time with them."""
    for task in tasks:
        for n_workers in (1, 2):
            yield task, n_workers, ANY_NUMBER
        if task == "foraging" and VARIABLE in os.environ:
            yield task, N_ENVS, A_PROCESS_EACH


def compare(task: str, n_workers: int, programs: list[str]) -> dict[str, Any]:
    """Frames per second of each program, by round, and the median of the rounds."""
    rounds: dict[str, list[int]] = {program: [] for program in programs}
    for number in range(ROUNDS):
        for program in programs:
            me = [sys.executable, "-m", "tests.programs.benchmarks.worker_speed", "--part", program, task]
            seconds = statistics.median(seconds_of_iterations([*me, str(n_workers)])[WARMUP:])
            rounds[program].append(round(N_ENVS * STEPS / seconds))
            print(f"round {number + 1}, {task}, {n_workers}, {program}: {rounds[program][-1]}", flush=True)
    return {
        program: {"frames_per_second": round(statistics.median(found)), "rounds": found}
        for program, found in rounds.items()
    }


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"


def main() -> None:
    """Run one program (``--part``), or compare."""
    if sys.argv[1:2] == ["--part"]:
        import torch

        torch.set_num_threads(1)
        PROGRAMS[sys.argv[2]](sys.argv[3], int(sys.argv[4]))
        return
    result: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"settings": {}}
    for task, n_workers, programs in settings(sys.argv[1:] or FACTORIES):
        result["settings"][f"{task}, {_processes(n_workers)}"] = compare(task, n_workers, programs)
    result |= {
        "command": "python -m tests.programs.benchmarks.worker_speed",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
