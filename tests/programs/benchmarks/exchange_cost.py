"""What an exchange of critics costs a member of a population, beside the training between two exchanges.

Run ``python -m tests.programs.benchmarks.exchange_cost``. A member trains in this process, on one thread, as four
members on four cores would; the critics that it takes over are its own. Scores with eager and with compiled steps take
turns. Results go to docs/results/exchange_cost.json and into docs/scale_out.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from ctde_kit.distributed import CriticExchange, Meetings, Scored
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.recipes import MADDPGConfig, SyncConfig
from ctde_kit.recipes.commands.short_forms import expand
from ctde_kit.recipes.wiring.membership import EXCHANGE, Member
from ctde_kit.training import iterate
from tests.programs.benchmarks.scale_out_figures import publish
from tests.programs.learning.genetic import GAMES, SETTING, TASKS
from tests.recipes.command_line import composed

EVERY, ROUNDS = 5_000, 6
CASES = {
    "simple_tag, random prey, Zhou and Chen's settings": [*TASKS["vmas"], *GAMES["random prey"], *SETTING],
    "navigation, default settings": ["task=vmas/navigation"],
}


class OwnCritics(Meetings):
    """Meets nobody: a member gets its own critics back."""

    def exchange(self, scored: Scored) -> dict[str, Any]:
        return dict(scored.critics)


class Timed:
    """A function that keeps the seconds of processor time of its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, list[float]()

    def __call__(self, *arguments: Any) -> Any:
        start = time.process_time()
        result = self.function(*arguments)
        self.seconds.append(time.process_time() - start)
        return result


def measure(overrides: list[str]) -> dict[str, float]:
    """Medians of seconds: of the training between two exchanges, of exchanges, and of the scores within these."""
    expanded = [override for given in overrides for override in expand(given)]
    config: MADDPGConfig = composed("maddpg", *expanded, "compile=on", "device=cpu", "threads=1")
    apart = max(EVERY, config.frames_per_batch)
    config = replace(config, total_frames=(2 * ROUNDS + 3) * apart)
    parts = config.build()
    member = Member(config, 0, SyncConfig(what="best_critic", every=EVERY), OwnCritics())
    exchange = member.callbacks[EXCHANGE]
    assert isinstance(exchange, CriticExchange)
    exchange.on_start(parts, 0)
    exchange.score = score = Timed(exchange.score)
    exchanged = Timed(exchange)
    training: list[float] = []
    begun = time.process_time()
    for iteration in iterate(parts):
        trained, scores = time.process_time() - begun, len(score.seconds)
        exchanged(parts, iteration, {})
        if len(score.seconds) > scores:
            training.append(trained)
            step_compiled(member, scores % 2 == 1)
            begun = time.process_time()
    parts.collector.shutdown()
    exchanges = [seconds for seconds in exchanged.seconds if seconds > min(score.seconds)]
    found = {"frames": apart, "training": median(training[2:])}
    for first, name in enumerate(("compiled", "eager"), start=2):  # the first score compiles
        found |= {f"{name} exchange": median(exchanges[first::2]), f"{name} score": median(score.seconds[first::2])}
    return found


def step_compiled(member: Member, compiled: bool) -> None:
    """Whether the steps of the member's next score are compiled."""
    assert member._scoring is not None
    env = member._scoring.base_env
    assert isinstance(env, VmasEnv)
    env.compile_step = compiled


def table(results: dict[str, dict[str, float]]) -> str:
    lines = [
        "| task | frames between exchanges | training, s | scores | score, s | all else, ms | share of time |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, found in results.items():
        for name in ("eager", "compiled"):
            whole, score = found[f"{name} exchange"], found[f"{name} score"]
            share = whole / (whole + found["training"])
            lines.append(
                f"| {case} | {found['frames']:,} | {found['training']:.2f} | {name} | {score:.3f} | "
                f"{1000 * (whole - score):.1f} | {share:.1%} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write results and page."""
    torch.set_num_threads(1)
    results: dict[str, dict[str, float]] = {}
    for case, overrides in CASES.items():
        results[case] = measure(overrides)
        print(case, results[case], flush=True)
    publish("exchange_cost", {"cases": results}, table(results))


if __name__ == "__main__":
    main()
