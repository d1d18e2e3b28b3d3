"""The evaluations of a run: their environments, what they write, and the absolute metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctde_kit.modules import TeamPolicy
from ctde_kit.recipes.wiring.devices import resolve_device
from ctde_kit.recipes.wiring.evaluating import ABSOLUTE_SEED, EVALUATION_SEED
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import EvaluationLog, Evaluations, RunDirectory, best_policies, evaluate, reported_metrics

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModuleBase
    from torchrl.envs import EnvBase

    from ctde_kit import Parts
    from ctde_kit.recipes.configs.recipe import RecipeConfig
    from ctde_kit.training import Returns

ABSOLUTE_FACTOR = 10


def evaluation_env(config: RecipeConfig, parts: Parts, *, episodes: int, seed: int) -> EnvBase:
    """An env for ``ck.evaluate``, apart from the training env, with the transforms that the policy needs.

    A run evaluates in such an env with ``seed=1_000_000 + config.seed`` and ``episodes=config.evaluation.episodes``.
    ``ck.evaluate`` with the same ``seed`` and ``episodes`` gives its figures.

    Args:
        config: of the recipe.
        parts: what ``config.build()`` gave.
        episodes: of an evaluation; the env has as many copies as the task plays at once.
        seed: of the env, which ``ck.evaluate`` seeds once more.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import GRUNetwork, MAPPOConfig, VmasTask, evaluation_env
    >>> config = MAPPOConfig(task=VmasTask(n_envs=2, max_steps=5), actor=GRUNetwork())
    >>> parts = config.build()
    >>> env = evaluation_env(config, parts, episodes=3, seed=1_000_000)
    >>> ck.evaluate(env, parts.policy, ["agents"], episodes=3, seed=1_000_000).lengths.tolist()
    [5, 5, 5]
    """
    policy = parts.policy
    assert isinstance(policy, TeamPolicy)
    env = config.task.build_evaluation(seed=seed, device=resolve_device(config.device), episodes=episodes)
    return with_transforms(env, TeamSpec.from_env(parts.collector.env), policy)


def run_evaluations(
    config: RecipeConfig, team: TeamSpec, policy: TeamPolicy, directory: RunDirectory, device: str
) -> Evaluations:
    """The evaluations of a run of ``config``."""
    task, groups = config.task, [group.name for group in team]
    metric = config.checkpoint.metric
    episodes, seed = config.evaluation.episodes, EVALUATION_SEED + config.seed
    env = with_transforms(task.build_evaluation(seed=seed, device=device, episodes=episodes), team, policy)
    competes = bool(task.groups_compete)
    try:
        reported = reported_metrics(env, groups)
        bests = best_policies(directory.checkpoints, config.algorithm, metric, groups, competes, reported)
    except BaseException:
        env.close()
        raise
    return Evaluations(
        env,
        policy,
        groups,
        competes,
        episodes=episodes,
        seed=seed,
        log=EvaluationLog(directory.evaluations),
        bests=bests,
    )


def absolute_metric(config: RecipeConfig, team: TeamSpec, evaluations: Evaluations, device: str) -> dict[str, float]:
    """What the best policy reaches in ``ABSOLUTE_FACTOR`` times the episodes of an evaluation."""
    episodes, seed = ABSOLUTE_FACTOR * evaluations.episodes, ABSOLUTE_SEED + config.seed

    def evaluate_policy(policy: TensorDictModuleBase) -> Returns:
        env = config.task.build_evaluation(seed=seed, device=device, episodes=episodes)
        try:
            return evaluate(
                with_transforms(env, team, policy),  # pyright: ignore[reportArgumentType]  # a TeamPolicy
                policy,
                evaluations.groups,
                episodes=episodes,
                seed=seed,
            )
        finally:
            env.close()

    return evaluations.absolute(evaluate_policy)
