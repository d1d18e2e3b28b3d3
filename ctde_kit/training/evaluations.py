"""The evaluations of one run: what they found, episode by episode, and the best policy so far."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase

from ctde_kit.training.best_policy import BestPolicy
from ctde_kit.training.episode_returns import Returns
from ctde_kit.training.evaluation import evaluate
from ctde_kit.training.evaluation_log import EvaluationLog

logger = logging.getLogger("ctde_kit")
# Below this correlation of returns two groups are said to be opposed.
OPPOSED = -0.5
# With fewer episodes such a correlation is often chance.
ENOUGH_EPISODES = 50


@dataclass
class Evaluations:
    """Evaluates a policy greedily when called with the frames collected so far; gives the evaluation's metrics.

    Args:
        env: an env that training does not use.
        policy: the policy that learns.
        groups: names of the agent groups.
        groups_compete: returns are reported per group only.
        episodes: of each evaluation.
        seed: of each evaluation; training never uses it.
        log: where every episode is written.
        bests: what keeps the best policy, or the best one of each group.

    Where the returns of two groups are opposed, and ``groups_compete`` is false, one warning says so.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import ctde_kit as ck
    >>> from ctde_kit.training import EvaluationLog, Evaluations, best_policies, read_evaluations
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> run = Path(tempfile.mkdtemp())
    >>> bests = best_policies(run, "random", "eval/return_mean", ["agents"], groups_compete=False)
    >>> log = EvaluationLog(run / "evaluations.jsonl")
    >>> evaluations = Evaluations(env, policy, ["agents"], False, episodes=4, seed=1_000_000, log=log, bests=bests)
    >>> metrics = evaluations(frames=600)
    >>> metrics["episodes"], len(list(read_evaluations(log.path)))
    (4, 4)
    """

    env: EnvBase
    policy: TensorDictModuleBase
    groups: list[str]
    groups_compete: bool
    episodes: int
    seed: int
    log: EvaluationLog
    bests: Sequence[BestPolicy]
    _warned: bool = field(default=False, init=False)

    def __call__(self, frames: int) -> dict[str, float]:
        returns = evaluate(self.env, self.policy, self.groups, episodes=self.episodes, seed=self.seed)
        self._warn_of_opposed(returns)
        self.log.write(frames, seed=self.seed, records=returns.records(self.groups_compete))
        metrics = returns.metrics(self.groups_compete)
        for best in self.bests:
            best.consider(self.policy, frames, metrics)
        return metrics

    def _warn_of_opposed(self, returns: Returns) -> None:
        if self.groups_compete or self._warned:
            return
        for (one, other), figure in returns.correlations().items():
            if figure < OPPOSED and len(returns.by_group[one]) >= ENOUGH_EPISODES:
                logger.warning(
                    "%s earns what %s loses (correlation of their returns %.2f over %d episodes), and both are taken "
                    "for one team: say groups_compete=True",
                    *(one, other, figure, len(returns.by_group[one])),
                )
                self._warned = True

    def keep(self) -> None:
        """Write the best policies that are new; called before a checkpoint is written."""
        for best in self.bests:
            best.write()

    def go_on(self, frames: int) -> None:
        """Drop what was found after a checkpoint at ``frames``."""
        self.log.drop_from(frames + 1)
        for best in self.bests:
            best.go_on(frames)

    def absolute(self, evaluate_policy: Callable[[TensorDictModuleBase], Returns]) -> dict[str, float]:
        """The absolute metric (Colas et al. 2018, Gorsane et al. 2022): a long evaluation of the best policy.

        ``absolute/frames`` says at how many frames that policy was found, ``absolute/return_mean`` and the like what it
        reached. Where each group has a best policy of its own, each group has such figures, ``absolute/{group}/...``.

        Args:
            evaluate_policy: evaluates a policy long enough, with seeds that chose no policy.
        """
        last = {name: entry.detach().clone() for name, entry in self.policy.state_dict().items()}
        found: dict[str, float] = {}
        try:
            for best in self.bests:
                best.load(self.policy)
                metrics = evaluate_policy(self.policy).metrics(self.groups_compete)
                prefix = "" if len(self.bests) == 1 else best.group_prefix
                found[f"absolute/{prefix}frames"] = best.frames
                found |= {f"absolute/{name}": value for name, value in metrics.items() if name.startswith(prefix)}
        finally:
            self.policy.load_state_dict(last)
        return found
