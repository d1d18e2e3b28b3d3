"""MAPPO, QMIX and MADDPG iterations from TorchRL's own parts, as its examples wire them.

``tests.programs.benchmarks.training_speed`` runs it.

Arguments: algorithm, scenario, cells, scenario arguments, iterations. Prints the seconds of each iteration.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.envs.libs.vmas import VmasEnv
from torchrl.modules import (
    AdditiveGaussianModule,
    EGreedyModule,
    MultiAgentMLP,
    ProbabilisticActor,
    QMixer,
    QValueModule,
    TanhDelta,
    TanhNormal,
)
from torchrl.objectives import ClipPPOLoss, DDPGLoss, QMixerLoss, SoftUpdate, ValueEstimators

FRAMES, N_ENVS = 6_000, 60
Update = Callable[[TensorDictBase], None]


def mlp(env: Any, inputs: int, outputs: int, cells: list[int], centralized: bool) -> MultiAgentMLP:
    """Shared by the agents."""
    return MultiAgentMLP(
        inputs,
        outputs,
        env.n_agents,
        centralized=centralized,
        share_params=True,
        num_cells=cells,
        activation_class=nn.Tanh,
    )


def mappo(env: Any, cells: list[int]) -> tuple[Any, Update]:
    """The policy, and what an iteration does with its batch."""
    n_observations = env.observation_spec["agents", "observation"].shape[-1]
    spec = env.full_action_spec_unbatched["agents", "action"]
    network = nn.Sequential(mlp(env, n_observations, 2 * spec.shape[-1], cells, False), NormalParamExtractor())
    policy = ProbabilisticActor(
        TensorDictModule(network, [("agents", "observation")], [("agents", "loc"), ("agents", "scale")]),
        in_keys=[("agents", "loc"), ("agents", "scale")],
        out_keys=[("agents", "action")],
        spec=env.full_action_spec_unbatched,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": spec.space.low, "high": spec.space.high},
        return_log_prob=True,
    )
    critic = TensorDictModule(
        mlp(env, n_observations, 1, cells, True), [("agents", "observation")], [("agents", "state_value")]
    )
    loss = ClipPPOLoss(policy, critic, clip_epsilon=0.2, entropy_coeff=0.0, normalize_advantage=False)
    names = {"reward": "reward", "action": "action", "value": "state_value", "done": "done", "terminated": "terminated"}
    loss.set_keys(**{name: ("agents", key) for name, key in names.items()})
    loss.make_value_estimator(ValueEstimators.GAE, gamma=0.99, lmbda=0.9)
    buffer = ReplayBuffer(storage=LazyTensorStorage(FRAMES), sampler=SamplerWithoutReplacement(), batch_size=400)
    optimizer = torch.optim.Adam(loss.parameters(), 5e-5)

    def update(batch: TensorDictBase) -> None:
        shape = batch["next", "agents", "reward"].shape
        for key in ("done", "terminated"):
            batch["next", "agents", key] = batch["next", key].unsqueeze(-1).expand(shape)
        with torch.no_grad():
            loss.value_estimator(
                batch, params=loss.critic_network_params, target_params=loss.target_critic_network_params
            )
        buffer.extend(batch.reshape(-1))
        for _ in range(10 * FRAMES // 400):
            losses = loss(buffer.sample())
            (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()

    return policy, update


def qmix(env: Any, cells: list[int]) -> tuple[Any, Update]:
    """The policy, and what an iteration does with its batch."""
    n_observations = env.observation_spec["agents", "observation"].shape[-1]
    n_actions = env.full_action_spec_unbatched["agents", "action"].space.n
    network = mlp(env, n_observations, n_actions, cells, False)
    values = TensorDictSequential(
        TensorDictModule(network, [("agents", "observation")], [("agents", "action_value")]),
        QValueModule(
            action_value_key=("agents", "action_value"),
            out_keys=[("agents", "action"), ("agents", "action_value"), ("agents", "chosen_action_value")],
            spec=env.full_action_spec_unbatched,
            action_space="categorical",
        ),
    )
    policy = TensorDictSequential(
        values,
        EGreedyModule(env.full_action_spec_unbatched, action_key=("agents", "action"), annealing_num_steps=60_000),
    )
    mixer = TensorDictModule(
        QMixer((env.n_agents, n_observations), 32, env.n_agents, "cpu"),
        [("agents", "chosen_action_value"), ("agents", "observation")],
        ["chosen_action_value"],
    )
    loss = QMixerLoss(values, mixer, action_space="categorical", delay_value=True)
    loss.set_keys(
        action_value=("agents", "action_value"),
        local_value=("agents", "chosen_action_value"),
        global_value="chosen_action_value",
        action=("agents", "action"),
    )
    loss.make_value_estimator(ValueEstimators.TD0, gamma=0.99)
    target = SoftUpdate(loss, tau=0.005)
    buffer = ReplayBuffer(storage=LazyTensorStorage(100_000), batch_size=256)
    optimizer = torch.optim.Adam(loss.parameters(), 5e-5)

    def update(batch: TensorDictBase) -> None:
        batch["next", "reward"] = batch["next", "agents", "reward"].mean(-2)
        buffer.extend(batch.reshape(-1))
        for _ in range(100):
            loss(buffer.sample())["loss"].backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            target.step()

    return policy, update


def maddpg(env: Any, cells: list[int]) -> tuple[Any, Update]:
    """The policy, and what an iteration does with its batch."""
    n_observations = env.observation_spec["agents", "observation"].shape[-1]
    spec = env.full_action_spec_unbatched["agents", "action"]
    n_actions = spec.shape[-1]
    actor = ProbabilisticActor(
        TensorDictModule(
            mlp(env, n_observations, n_actions, cells, False), [("agents", "observation")], [("agents", "param")]
        ),
        in_keys=[("agents", "param")],
        out_keys=[("agents", "action")],
        spec=env.full_action_spec_unbatched,
        distribution_class=TanhDelta,
        distribution_kwargs={"low": spec.space.low, "high": spec.space.high},
    )
    noise = AdditiveGaussianModule(
        env.full_action_spec_unbatched, annealing_num_steps=60_000, action_key=("agents", "action")
    )
    seen = [("agents", "observation"), ("agents", "action")]
    join = TensorDictModule(lambda *parts: torch.cat(parts, -1), seen, [("agents", "seen")])
    values = TensorDictModule(
        mlp(env, n_observations + n_actions, 1, cells, True), [("agents", "seen")], [("agents", "state_action_value")]
    )
    loss = DDPGLoss(actor, TensorDictSequential(join, values), delay_value=True, delay_actor=True)
    names = {"state_action_value": "state_action_value", "reward": "reward", "done": "done", "terminated": "terminated"}
    loss.set_keys(**{name: ("agents", key) for name, key in names.items()})
    loss.make_value_estimator(ValueEstimators.TD0, gamma=0.99)
    target = SoftUpdate(loss, tau=0.005)
    buffer = ReplayBuffer(storage=LazyTensorStorage(100_000), batch_size=256)
    parameters = {"loss_actor": loss.actor_network_params, "loss_value": loss.value_network_params}
    optimizers = {name: torch.optim.Adam(part.flatten_keys().values(), 5e-5) for name, part in parameters.items()}

    def update(batch: TensorDictBase) -> None:
        shape = batch["next", "agents", "reward"].shape
        for key in ("done", "terminated"):
            batch["next", "agents", key] = batch["next", key].unsqueeze(-1).expand(shape)
        buffer.extend(batch.reshape(-1))
        for _ in range(100):
            losses = loss(buffer.sample())
            for name, optimizer in optimizers.items():
                losses[name].backward()
                torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 5.0)
                optimizer.step()
                optimizer.zero_grad()
            target.step()

    return TensorDictSequential(actor, noise), update


def main() -> None:
    """Run the iterations."""
    warnings.simplefilter("ignore")
    algorithm, scenario, cells, arguments, iterations = sys.argv[1:]
    torch.set_num_threads(2)
    torch.manual_seed(0)
    vmas = VmasEnv(
        scenario,
        num_envs=N_ENVS,
        max_steps=100,
        seed=0,
        continuous_actions=algorithm != "qmix",
        categorical_actions=True,
        **json.loads(arguments),
    )
    env = TransformedEnv(vmas, RewardSum(in_keys=[("agents", "reward")], out_keys=[("agents", "episode_reward")]))
    policy, update = {"mappo": mappo, "qmix": qmix, "maddpg": maddpg}[algorithm](env, json.loads(cells))
    collector = Collector(env, policy, frames_per_batch=FRAMES, total_frames=FRAMES * int(iterations))
    last = time.perf_counter()
    for batch in collector:
        update(batch)
        now = time.perf_counter()
        print("iteration", now - last, flush=True)
        last = now
    collector.shutdown()


if __name__ == "__main__":
    main()
