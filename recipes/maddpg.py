"""MADDPG: deterministic actors, critics of joint actions; IDDPG and FACMAC are the same recipe with other parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
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
from ctde_kit.recipes.critics import averaging
from ctde_kit.recipes.deterministic_actors import deterministic_actor
from ctde_kit.recipes.envs import critics_team, with_transforms
from ctde_kit.recipes.groups import learning_team, team_policy
from ctde_kit.recipes.mixers import check_mixes
from ctde_kit.recipes.networks import activation_class
from omegaconf import MISSING

from ctde_kit.collectors import RolloutCollector
from ctde_kit.errors import UserError
from ctde_kit.modules import InferredPolicies, MultiAgentDeterministicActor, MultiAgentMLP, TeamPolicy
from ctde_kit.objectives import MADDPGLoss, MinimaxAdversary, PolicyInference, TeamReward
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

ALGORITHMS = ("maddpg", "iddpg", "facmac")
PARTS = ("task", "actor", "critic", "mixer", "exploration", "replay", "returns", "target", "logger")


@dataclass
class MADDPGConfig:
    """Options of ``ctde-maddpg``, ``ctde-iddpg`` and ``ctde-facmac``.

    Args:
        algorithm: maddpg, iddpg or facmac.
        task: what to learn; actions are continuous or discrete.
        actor: the actors' network.
        critic: the critics' layout and network: centralized, decentralized, state or agent_state.
        mixer: none; qmix or vdn for a critic of the team (FACMAC).
        exploration: gaussian or ornstein_uhlenbeck for continuous actions, gumbel for discrete ones.
        replay: transitions, sequences or episodes, and where they are kept.
        returns: what critics learn: n_step or td_lambda.
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
        hidden_from: recurrent actors start a sequence from the stored hidden state (stored) or from zero.
        other_actions: the others' actions in an actor's loss: of the replay, or current ones, as always with a mixer.
        minimax_epsilon: step by which others' actions are moved against each agent (M3DDPG); null for MADDPG.
        infer_policies: agents' targets take the others' next actions as they believe them to be, not as they are.
        inference_entropy: weight of the beliefs' entropy.
        inference_deviation: of Gaussian beliefs of continuous policies, in units of action.
        ensemble_size: sub-policies an agent, one of which it follows in an episode; 1 for a single policy.
        team_weight: share of the group's mean in each agent's reward, from 0 to 1; without a mixer.
        team_reward: with a mixer, the team's reward is the mean or the sum of its agents'.
        action_regularization: weight of the mean square of the actors' outputs.
        temperature: of the softmax whose gradient discrete actions get.
        gamma: discount a step.
        lr: learning rate of the actors.
        critic_lr: of the critics and the mixer; null for lr.
        anneal_lr: move both to 0 in a straight line over total_frames.
        loss_function: of the critics: l2 or huber.
        huber_delta: where Huber's loss turns linear, in units of returns.
        max_grad_norm: largest gradient norm, of all actors, of all critics, of the mixer.
        evaluation: greedy evaluation, how often and how long.
        checkpoint: how often.
        video: write a GIF of a greedy episode at the end.
    """

    algorithm: str = "maddpg"
    task: Any = MISSING
    actor: Any = MISSING
    critic: Any = MISSING
    mixer: Any = MISSING
    exploration: Any = MISSING
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
    updates_per_frame: float = 1 / 12
    learning_starts: int = 0
    hidden_from: str = "stored"
    other_actions: str = "replay"
    minimax_epsilon: float | None = None
    infer_policies: bool = False
    inference_entropy: float = 1e-3
    inference_deviation: float = 0.1
    ensemble_size: int = 1
    team_weight: float = 0.0
    team_reward: str = "mean"
    action_regularization: float = 0.0
    temperature: float = 1.0
    gamma: float = 0.9
    lr: float = 5e-4
    critic_lr: float | None = None
    anneal_lr: bool = False
    loss_function: str = "l2"
    huber_delta: float = 1.0
    max_grad_norm: float = 5.0
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    video: bool = False
    _target_: str = "ctde_kit.recipes.maddpg.MADDPGConfig"

    def __post_init__(self) -> None:
        check_choice("algorithm", self.algorithm, ALGORITHMS)
        check_run(self, parts=PARTS)
        check_ratio(gamma=self.gamma, team_weight=self.team_weight)
        check_positive(
            frames_per_batch=self.frames_per_batch,
            updates_per_frame=self.updates_per_frame,
            temperature=self.temperature,
            lr=self.lr,
            critic_lr=self.critic_lr,
            huber_delta=self.huber_delta,
            max_grad_norm=self.max_grad_norm,
            inference_deviation=self.inference_deviation,
            ensemble_size=self.ensemble_size,
        )
        check_not_negative(
            learning_starts=self.learning_starts,
            minimax_epsilon=self.minimax_epsilon,
            inference_entropy=self.inference_entropy,
            action_regularization=self.action_regularization,
        )
        check_choice("hidden_from", self.hidden_from, ("stored", "zero"))
        check_choice("other_actions", self.other_actions, ("replay", "current"))
        check_choice("team_reward", self.team_reward, ("mean", "sum"))
        check_choice("loss_function", self.loss_function, ("huber", "l2"))


def build_actor(cfg: MADDPGConfig, group: GroupSpec, team: TeamSpec) -> MultiAgentDeterministicActor:
    """One group's actor."""
    return deterministic_actor(
        team, group, cfg.actor, cfg.exploration, temperature=cfg.temperature, ensemble_size=cfg.ensemble_size
    )


def build(cfg: MADDPGConfig) -> Parts:
    """Wire MADDPG's parts."""
    torch.manual_seed(cfg.seed)
    device = resolve_device(cfg.device)
    base_env = cfg.task.build(seed=cfg.seed, device=device)
    compiling = resolve_compile(
        cfg.compile, base_env, total_frames=cfg.total_frames, updates_per_frame=cfg.updates_per_frame
    )
    team = critics_team(base_env, cfg.critic)

    policy = team_policy(cfg, team, build_actor, device)
    actors: dict[str, Any] = policy.learners
    learning = learning_team(team, policy)
    check_mixes(cfg, learning)
    critics = {group.name: cfg.critic.build_action_value(team, group).to(device) for group in learning}
    check_sees_others(cfg, critics)
    mixer = cfg.mixer.build(learning)
    inference = policy_inference(cfg, team).to(device) if cfg.infer_policies else None
    loss = make_loss(cfg, policy, critics, None if mixer is None else mixer.to(device), inference)
    recurrent = any(network.hidden_key for network in [*[a.agent_network for a in actors.values()], *critics.values()])
    if cfg.replay.form.burn_in and not recurrent:
        raise UserError("replay.form.burn_in: these networks are feed-forward; leave it 0, or use network@actor=gru")
    learners = [*critics.values(), *[part for part in (loss.mixer, inference) if part is not None]]
    learning_rates = [
        {"params": list(dict.fromkeys(p for actor in actors.values() for p in actor.parameters())), "lr": cfg.lr},
        {"params": [p for part in learners for p in part.parameters()], "lr": cfg.critic_lr or cfg.lr},
    ]
    # Not a larger eps: policy gradients of small rewards are below 1e-5 a weight.
    optimizer = torch.optim.Adam(learning_rates, eps=1e-8, fused=True)
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
            {**averaging(cfg.critic, critics.values(), optimizer), "team": cfg.target.build(loss)},
        ),
        policy=policy,
        anneal=Annealing(
            LinearEpsilon(
                [actor.noise.scale for actor in actors.values()],
                cfg.exploration.start,
                cfg.exploration.end,
                cfg.exploration.frames,
            ),
            *(
                LinearLearningRate(optimizer, lr, 0.0 if cfg.anneal_lr else lr, cfg.total_frames, group)
                for group, lr in enumerate([cfg.lr, cfg.critic_lr or cfg.lr])
            ),
        ),
    )


def policy_inference(cfg: MADDPGConfig, team: TeamSpec) -> PolicyInference:
    """A perceptron as wide as the actors for what each agent believes of each other one."""
    make_network = partial(
        MultiAgentMLP,
        share_params=False,
        num_cells=cfg.actor.num_cells,
        activation_class=activation_class(cfg.actor.activation),
    )
    networks = InferredPolicies(team, make_network)
    return PolicyInference(networks, entropy_coeff=cfg.inference_entropy, deviation=cfg.inference_deviation)


def check_sees_others(cfg: MADDPGConfig, critics: Any) -> None:
    """Raise ``UserError`` for options about the others' actions where no critic sees them."""
    asked = {
        "other_actions=current": cfg.other_actions == "current",
        "minimax_epsilon": cfg.minimax_epsilon is not None,
        "infer_policies=true": cfg.infer_policies,
    }
    if any(asked.values()) and all(getattr(critic, "decentralized", False) for critic in critics.values()):
        name = next(name for name, is_asked in asked.items() if is_asked)
        raise UserError(
            f"{name}: these critics do not see the others' actions; leave it out, or use critic=centralized"
        )


def make_loss(cfg: MADDPGConfig, policy: TeamPolicy, critics: Any, mixer: Any, inference: Any) -> MADDPGLoss:
    """The loss of these parts, as the configuration has it."""
    return MADDPGLoss(
        policy.actors,
        critics,
        mixer,
        gamma=cfg.gamma,
        other_actions=cfg.other_actions,  # type: ignore[arg-type]
        returns=cfg.returns,
        team_weight=cfg.team_weight,
        action_regularization=cfg.action_regularization,
        value_loss=cfg.loss_function,  # type: ignore[arg-type]
        huber_delta=cfg.huber_delta,
        inference=inference,
        adversary=None if cfg.minimax_epsilon is None else MinimaxAdversary(cfg.minimax_epsilon),
        burn_in=cfg.replay.form.burn_in,
        use_stored_hidden=cfg.hidden_from == "stored",
    )


main = command_line("maddpg")

if __name__ == "__main__":
    main()
