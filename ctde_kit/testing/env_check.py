"""``check_env``: the doctor for envs."""

from __future__ import annotations

from collections.abc import Callable

from torchrl.envs import EnvBase

from ctde_kit.testing import env_memory_rules, env_randomness_rules, env_rules
from ctde_kit.testing.env_case import EnvCase
from ctde_kit.testing.findings import Report, examine

ENV_RULES = (
    env_rules.specs,
    env_rules.batch_sizes,
    env_rules.finite,
    env_rules.time_limit_is_truncation,
    env_memory_rules.data_are_not_overwritten,
    env_memory_rules.resets_forget_the_past,
    env_rules.last_observation_is_before_the_reset,
    env_rules.masks,
    env_rules.agents_own_ends,
    env_randomness_rules.seeds,
    env_randomness_rules.unseeded_copies,
    env_randomness_rules.partial_reset,
)


def check_env(
    env: EnvBase | Callable[..., EnvBase],
    *,
    max_steps: int | None = None,
    steps: int = 40,
    action_mask: str = "action_mask",
    mask: str = "mask",
    raises: bool = True,
) -> Report:
    """Check an env against the rules of multi-agent envs: specs, time limits, resets, masks, seeds, agents' own ends.

    The env is seeded, stepped with random allowed actions and reset. An env that the doctor made itself is closed.

    Args:
        env: any TorchRL env, with its transforms; or a function that makes one and takes a seed (or ``None``), or takes
            nothing. Only a function that takes a seed shows whether unseeded copies differ.
        max_steps: steps after which an episode is truncated; ``None``: what the env or its ``StepCounter`` says.
        steps: how many steps to look at, at least; more than an episode where the time limit is known.
        action_mask: the name of masks of allowed actions in a group.
        mask: the name of masks of living agents in a group.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.
        WorkerError: where an environment in a worker process raises, whatever ``raises`` says: the env is closed then.

    >>> import ctde_kit as ck
    >>> from ctde_kit.testing import check_env
    >>> report = check_env(ck.VmasEnv("navigation", num_envs=3, max_steps=5), max_steps=5)
    >>> print(report["time_limit_is_truncation"].figure)
    after 5 steps, the time limit, 24 of 24 envs are truncated, 0 terminated
    """
    case = EnvCase(env, max_steps, steps, action_mask, mask)
    try:
        return examine(f"check_env: {type(case.env).__name__}", ENV_RULES, case, raises)
    finally:
        if case.env is not env and not case.env.is_closed:
            case.env.close()
