"""QMIX: double Q-learning of a mixed team from replay; VDN, IQL and QPLEX are the same recipe with other mixers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from ctde_kit.recipes.checks import check_choice, check_not_negative, check_positive, check_ratio
from ctde_kit.recipes.cli import command_line
from ctde_kit.recipes.compiling import resolve_compile
from ctde_kit.recipes.config import (
    CheckpointConfig,
    EvaluationConfig,
    check_run,
    resolve_device,
)
from ctde_kit.recipes.envs import with_transforms
from ctde_kit.recipes.groups import learning_team, team_policy
from ctde_kit.recipes.mixers import check_mixes
from ctde_kit.recipes.q_actors import q_actor
from omegaconf import MISSING

from ctde_kit.collectors import RolloutCollector
from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentQActor
from ctde_kit.objectives import QMixLoss, TeamReward
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import (
    Annealing,
    GradientStep,
    LinearEpsilon,
    LinearLearningRate,
    Parts,
    UpdatesPerFrame,
    UpdateWithTargets,
)

ALGORITHMS = ("qmix", "vdn", "iql", "qplex")


@dataclass
class QMIXConfig:
    """Options of ``ctde-qmix``, ``ctde-vdn``, ``ctde-iql`` and ``ctde-qplex``.

    Args:
        algorithm: qmix, vdn, iql or qplex.
        task: what to learn; its actions are discrete.
        actor: the actors' network.
        mixer: qmix, vdn, qplex or none.
        replay: transitions, sequences or episodes, and where they are kept.
        returns: what values learn: n_step or td_lambda.
        target: how target networks follow: polyak or hard.
        logger: where metrics go beside metrics.csv.
        opponents: by group, who acts for it without learning: ctde_kit.recipes.opponents.
        initial: by group, the run whose policy it goes on from; critics and optimizers start anew.
        seed: of everything that is random.
        device: auto, cpu or cuda.
        compile: rollouts and updates as compiled graphs: auto (where the run is long enough), on or off.
        total_frames: env transitions to collect.
        frames_per_batch: frames an iteration, a multiple of task.n_envs.
        updates_per_frame: gradient steps for each frame collected.
        learning_starts: frames before the first gradient step.
        last_action: agents see their last action.
        hidden_from: recurrent networks start a sequence from the stored hidden state (stored) or from zero.
        team_reward: the team's reward is the mean or the sum of its agents'.
        gamma: discount a step.
        lr: learning rate, at the beginning.
        anneal_lr: move it to 0 in a straight line over total_frames.
        loss_function: huber or l2.
        huber_delta: where Huber's loss turns linear, in units of returns.
        max_grad_norm: largest gradient norm, of all actors and of the mixer.
        epsilon_start: probability of a random action at the beginning.
        epsilon_end: and after epsilon_frames.
        epsilon_frames: frames between.
        evaluation: greedy evaluation, how often and how long.
        checkpoint: how often.
        video: write a GIF of a greedy episode at the end.
    """

    algorithm: str = "qmix"
    task: Any = MISSING
    actor: Any = MISSING
    mixer: Any = MISSING
    replay: Any = MISSING
    returns: Any = MISSING
    target: Any = MISSING
    logger: Any = MISSING
    opponents: dict[str, Any] = field(default_factory=dict)
    initial: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    compile: str = "auto"
    total_frames: int = 300_000
    frames_per_batch: int = 6_000
    updates_per_frame: float = 1 / 6
    learning_starts: int = 0
    last_action: bool = False
    hidden_from: str = "stored"
    team_reward: str = "mean"
    gamma: float = 0.9
    lr: float = 3e-4
    anneal_lr: bool = False
    loss_function: str = "huber"
    huber_delta: float = 1.0
    max_grad_norm: float = 5.0
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_frames: int = 100_000
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    video: bool = False
    _target_: str = "ctde_kit.recipes.qmix.QMIXConfig"

    def __post_init__(self) -> None:
        check_choice("algorithm", self.algorithm, ALGORITHMS)
        check_run(self, parts=("task", "actor", "mixer", "replay", "returns", "target", "logger"))
        check_ratio(gamma=self.gamma, epsilon_start=self.epsilon_start, epsilon_end=self.epsilon_end)
        check_positive(
            frames_per_batch=self.frames_per_batch,
            updates_per_frame=self.updates_per_frame,
            lr=self.lr,
            huber_delta=self.huber_delta,
            max_grad_norm=self.max_grad_norm,
            epsilon_frames=self.epsilon_frames,
        )
        check_not_negative(learning_starts=self.learning_starts)
        check_choice("hidden_from", self.hidden_from, ("stored", "zero"))
        check_choice("team_reward", self.team_reward, ("mean", "sum"))
        check_choice("loss_function", self.loss_function, ("huber", "l2"))


def build_actor(cfg: QMIXConfig, group: GroupSpec, team: TeamSpec) -> MultiAgentQActor:
    """One group's actor."""
    return q_actor(team, group, cfg.actor, last_action=cfg.last_action, epsilon=cfg.epsilon_start)


def build(cfg: QMIXConfig) -> Parts:
    """Wire QMIX's parts."""
    torch.manual_seed(cfg.seed)
    device = resolve_device(cfg.device)
    base_env = cfg.task.build(seed=cfg.seed, device=device)
    compiling = resolve_compile(
        cfg.compile, base_env, total_frames=cfg.total_frames, updates_per_frame=cfg.updates_per_frame
    )
    team = TeamSpec.from_env(base_env)

    policy = team_policy(cfg, team, build_actor, device)
    actors: dict[str, Any] = policy.learners
    learning = learning_team(team, policy)
    check_mixes(cfg, learning)
    mixer = cfg.mixer.build(learning)
    loss = QMixLoss(
        actors,
        None if mixer is None else mixer.to(device),
        gamma=cfg.gamma,
        returns=cfg.returns,
        value_loss=cfg.loss_function,  # type: ignore[arg-type]
        huber_delta=cfg.huber_delta,
        burn_in=cfg.replay.form.burn_in,
        use_stored_hidden=cfg.hidden_from == "stored",
    )
    recurrent = any(actor.agent_network.recurrent for actor in actors.values())
    if cfg.replay.form.burn_in and not recurrent:
        raise UserError("replay.form.burn_in: these networks are feed-forward; leave it 0, or use network@actor=gru")
    learnt = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learnt, lr=cfg.lr, eps=1e-5, fused=True)
    return Parts(
        collector=RolloutCollector(
            with_transforms(base_env, team, policy),
            policy,
            frames_per_batch=cfg.frames_per_batch,
            total_frames=cfg.total_frames,
            compile=compiling.rollouts,
        ),
        prepare=TeamReward(learning, cfg.team_reward),  # type: ignore[arg-type]
        buffer=cfg.replay.build(keys=loss.stored_keys, device=device, max_steps=cfg.task.max_steps),
        schedule=UpdatesPerFrame(cfg.updates_per_frame, cfg.learning_starts),
        update=UpdateWithTargets(
            GradientStep({"team": loss}, optimizer, cfg.max_grad_norm, compile=compiling.updates and not recurrent),
            {"team": cfg.target.build(loss)},
        ),
        policy=policy,
        anneal=Annealing(
            LinearEpsilon([a.epsilon for a in actors.values()], cfg.epsilon_start, cfg.epsilon_end, cfg.epsilon_frames),
            LinearLearningRate(optimizer, cfg.lr, 0.0 if cfg.anneal_lr else cfg.lr, cfg.total_frames),
        ),
    )


main = command_line("qmix")

if __name__ == "__main__":
    main()
