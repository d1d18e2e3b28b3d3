"""The collector of a run: in this process or in others, alone or beside other learners."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ctde_kit.collectors import RolloutCollector
from ctde_kit.distributed import AgentLearners, Learners, RayProcesses, RemoteRollouts, rank_seed
from ctde_kit.errors import UserError
from ctde_kit.modules import TeamPolicy
from ctde_kit.protocols import ExperienceCollector
from ctde_kit.recipes.configs.distributed_options import OneProcess, RayDistribution
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.devices import check_computes_on_cpu
from ctde_kit.recipes.wiring.setting import Setting, begin
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import Parts

logger = logging.getLogger("ctde_kit")


def collector(cfg: RecipeConfig, run: Setting, team: TeamSpec, policy: TeamPolicy) -> ExperienceCollector:
    """The collector of a recipe's rollouts."""
    where = cfg.distributed
    if not isinstance(where, RayDistribution):
        return _in_this_process(cfg, run, team, policy, cfg.frames_per_batch)
    if where.members > 1:
        raise UserError(
            f"distributed.members={where.members}: these are {where.members} runs, each with parts of its own; train "
            "them with the command line, or with start_population(config, path)"
        )
    check_computes_on_cpu(cfg.device)
    frames = cfg.frames_per_batch // where.n_collectors
    if where.learners > 1:
        _say_what_callbacks_see(cfg, "what they change reaches this learner alone")
        own = _endless(_in_this_process(cfg, run, team, policy, frames))
        # Its schedules count the frames of all, which its collector tells it; its threads are set where it is hosted.
        each = replace(cfg, distributed=OneProcess(), frames_per_batch=frames, threads=None)
        shared: dict[str, Any] = {
            "processes": partial(RayProcesses, where.address, timeout=where.timeout),
            "learners": where.learners,
            "total_frames": cfg.total_frames,
            "threads": max(torch.get_num_threads() // where.learners, 1),
            "timeout": where.timeout,
        }
        if where.by_agent:
            return AgentLearners(own, partial(_parts_of_rank, each, 0), collect=where.collect, **shared)  # pyright: ignore[reportArgumentType]  # a checked choice
        return Learners(own, partial(_parts_of_rank, each), **shared)
    _say_what_callbacks_see(cfg, "the environments that collect are in others")
    each = replace(
        cfg, distributed=OneProcess(), total_frames=max(cfg.total_frames // where.collectors, 1), threads=None
    )
    # They share what this process computes with; with a delay it computes beside them.
    sharing = where.collectors + (1 if where.delay else 0)
    return RemoteRollouts(
        partial(_of_rank, each, team, policy, frames),
        policy,
        with_transforms(run.env, team, policy),
        processes=partial(RayProcesses, where.address, timeout=where.timeout),
        collectors=where.collectors,
        frames_per_batch=cfg.frames_per_batch,
        total_frames=cfg.total_frames,
        delay=where.delay,
        seed=cfg.seed,
        threads=max(torch.get_num_threads() // sharing, 1),
        restarts=where.restarts,
    )


def _parts_of_rank(cfg: RecipeConfig, rank: int) -> Parts:
    """The parts of a learner of one rank, in its own process, with the seed of that rank."""
    parts = replace(cfg, seed=rank_seed(cfg.seed, rank)).build()
    assert isinstance(parts.collector, RolloutCollector)
    return replace(parts, collector=_endless(parts.collector))


def _endless(collector: RolloutCollector) -> RolloutCollector:
    """The same collector; whoever takes its batches knows when to stop."""
    collector.total_frames = -1
    return collector


def _of_rank(cfg: RecipeConfig, team: TeamSpec, policy: TeamPolicy, frames: int, rank: int) -> RolloutCollector:
    """The collector of one rank, in its own process: what it builds has the seed of that rank."""
    run = begin(replace(cfg, seed=rank_seed(cfg.seed, rank)), updates_per_frame=0)
    return _in_this_process(cfg, run, team, policy, frames)


def _say_what_callbacks_see(cfg: RecipeConfig, what: str) -> None:
    if cfg.callbacks:
        logger.warning("callbacks see the parts of the run's own process; %s", what)


def _in_this_process(
    cfg: RecipeConfig, run: Setting, team: TeamSpec, policy: TeamPolicy, frames: int
) -> RolloutCollector:
    return RolloutCollector(
        with_transforms(run.env, team, policy),
        policy,
        frames_per_batch=frames,
        total_frames=cfg.total_frames,
        compile=run.compiling.rollouts,
    )
