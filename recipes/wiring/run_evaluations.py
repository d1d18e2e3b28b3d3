"""The evaluations of a run: their environments, what they write, and the absolute metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctde_kit.recipes.wiring.evaluating import ABSOLUTE_SEED, EVALUATION_SEED
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.training import EvaluationLog, Evaluations, RunDirectory, best_policies, evaluate, reported_metrics

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModuleBase

    from ctde_kit import TeamPolicy, TeamSpec
    from ctde_kit.recipes.configs.recipe import RecipeConfig
    from ctde_kit.training import Returns

ABSOLUTE_FACTOR = 10


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
