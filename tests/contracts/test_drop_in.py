"""Pipelines written with TorchRL alone, in which one part is the kit's: what fits, and the line that refuses the rest.

The table of ``docs/tutorials/drop_in.md`` states the same.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.envs import (
    Compose,
    EnvBase,
    InitTracker,
    ObservationNorm,
    ParallelEnv,
    RewardSum,
    StepCounter,
    TransformedEnv,
    VecNormV2,
    check_env_specs,
)
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import EGreedyModule, ProbabilisticActor, QValueModule, TanhNormal, set_recurrent_mode
from torchrl.modules import MultiAgentMLP as TorchRLMLP
from torchrl.objectives import (
    ClipPPOLoss,
    DDPGLoss,
    DiscreteSACLoss,
    DQNLoss,
    HardUpdate,
    QMixerLoss,
    SACLoss,
    SoftUpdate,
    ValueEstimators,
)
from torchrl.objectives.value import GAE

import ctde_kit as ck

N_ENVS, N_AGENTS, LENGTH = 3, 4, 6
KEYS = ck.GroupKeys("agents")
MLP = functools.partial(ck.MultiAgentMLP, num_cells=8)
GRU = functools.partial(ck.MultiAgentGRU, num_cells=8, hidden_size=5)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RL_WARNINGS", "False")


def make_env(continuous: bool = True) -> ck.VmasEnv:
    return ck.VmasEnv("navigation", N_ENVS, max_steps=4, continuous_actions=continuous, n_agents=N_AGENTS, seed=0)


@functools.cache
def team(continuous: bool = True) -> ck.TeamSpec:
    return ck.TeamSpec.from_env(make_env(continuous))


def make_actor(network: Any = MLP, continuous: bool = True) -> ck.MultiAgentActor:
    group = team(continuous)["agents"]
    size = group.action.n_parameters
    return ck.MultiAgentActor(group, ck.own_observation(group), network(group.observation_dim, size, N_AGENTS))


def make_q_actor(network: Any = MLP) -> ck.MultiAgentQActor:
    group = team(False)["agents"]
    built = network(group.observation_dim, group.action.n_parameters, N_AGENTS)
    return ck.MultiAgentQActor(group, ck.own_observation(group), built, epsilon=0.5)


def make_deterministic(network: Any = MLP) -> ck.MultiAgentDeterministicActor:
    group = team()["agents"]
    built = network(group.observation_dim, group.action.vector_dim, N_AGENTS)
    return ck.MultiAgentDeterministicActor(group, ck.own_observation(group), built)


ACTORS: dict[str, Callable[[Any], Any]] = {
    "stochastic": make_actor,
    "q": make_q_actor,
    "deterministic": make_deterministic,
}


def with_state(actor: Any, continuous: bool = True) -> EnvBase:
    """What a recurrent policy needs, and what a feed-forward one does not mind."""
    return TransformedEnv(make_env(continuous), Compose(InitTracker(), actor.make_tensordict_primer()))


def collect(actor: Any, continuous: bool = True) -> TensorDictBase:
    """A batch ``[n_envs, T]`` of TorchRL's collector, with flags and rewards as TorchRL's losses expect them."""
    env, frames = with_state(actor, continuous), N_ENVS * LENGTH
    collector = Collector(
        env,
        actor,
        frames_per_batch=frames,
        total_frames=2 * frames,
        auto_register_policy_transforms=False,
    )
    *_, batch = iter(collector)  # the second, which begins in the middle of episodes
    collector.shutdown()
    reward = batch["next", "agents", "reward"]
    for name in ("done", "terminated"):
        batch["next", "agents", name] = batch["next", name].unsqueeze(-1).expand(reward.shape).clone()
    batch["next", "reward"] = reward.mean(-2)
    return batch


def learn(loss: nn.Module, losses: TensorDictBase) -> None:
    """Every parameter that learns gets a gradient, and all are finite."""
    torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum().backward()
    for name, parameter in loss.named_parameters():
        if parameter.requires_grad and name != "log_alpha":
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def group_keys(loss: nn.Module, *names: str) -> None:
    loss.set_keys(**{name: KEYS(name) for name in names})


# TorchRL's own parts.


class JointCritic(nn.Module):
    """Of observations alone, or with actions."""

    def __init__(self, features: int):
        super().__init__()
        self.network = TorchRLMLP(features, 1, N_AGENTS, centralized=True, share_params=True, depth=1, num_cells=8)

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return self.network(torch.cat(parts, -1))


def torchrl_mlp(outputs: int) -> nn.Module:
    return TorchRLMLP(18, outputs, N_AGENTS, centralized=False, share_params=True, depth=1, num_cells=8)


def torchrl_actor() -> ProbabilisticActor:
    network = nn.Sequential(torchrl_mlp(4), NormalParamExtractor())
    module = TensorDictModule(network, [KEYS.observation], [KEYS.loc, KEYS.scale])
    return ProbabilisticActor(
        module,
        in_keys=[KEYS.loc, KEYS.scale],
        out_keys=[KEYS.action],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )


def torchrl_critic(of_actions: bool = False) -> TensorDictModule:
    read = [KEYS.observation, KEYS.action] if of_actions else [KEYS.observation]
    return TensorDictModule(
        JointCritic(20 if of_actions else 18), read, [KEYS.state_action_value if of_actions else KEYS.state_value]
    )


def torchrl_deterministic() -> TensorDictModule:
    return TensorDictModule(nn.Sequential(torchrl_mlp(2), nn.Tanh()), [KEYS.observation], [KEYS.action])


def torchrl_q() -> TensorDictSequential:
    choice = QValueModule(
        action_value_key=KEYS.action_value,
        out_keys=[KEYS.action, KEYS.action_value, KEYS.chosen_action_value],
        spec=make_env(False).full_action_spec_unbatched,
        action_space=None,
    )
    return TensorDictSequential(TensorDictModule(torchrl_mlp(9), [KEYS.observation], [KEYS.action_value]), choice)


def gae(critic: Any, batch: TensorDictBase) -> TensorDictBase:
    estimator = GAE(gamma=0.9, lmbda=0.8, value_network=critic)
    names = ("reward", "done", "terminated", "advantage", "value_target")
    estimator.set_keys(value=KEYS.state_value, **{name: KEYS(name) for name in names})
    with torch.no_grad(), set_recurrent_mode(True):
        return estimator(batch)


# Policies: collectors, parallel envs, exploration.


@pytest.mark.parametrize("network", [MLP, GRU], ids=["mlp", "gru"])
@pytest.mark.parametrize("kind", ACTORS)
def test_an_actors_primer_fits_the_specs_and_the_collector_keeps_its_state(kind: str, network: Any) -> None:
    actor, continuous = ACTORS[kind](network), kind != "q"
    env = with_state(actor, continuous)
    check_env_specs(env)
    assert env.fake_tensordict()["agents"].batch_size == (N_ENVS, N_AGENTS)
    batch = collect(actor, continuous)
    if network is GRU:
        begins = batch["is_init"][:, 1:].unsqueeze(-1)
        expected = batch["next", "agents", "actor_hidden"][:, :-1].masked_fill(begins, 0)
        assert torch.equal(batch["agents", "actor_hidden"][:, 1:], expected)
        assert batch["agents", "actor_hidden"][:, 0].any()  # it went on from the batch before


def test_the_collector_wires_a_recurrent_actor_itself(recwarn: pytest.WarningsRecorder) -> None:
    for network in (MLP, GRU):
        collector = Collector(
            make_env(), make_actor(network), frames_per_batch=6, total_frames=6, auto_register_policy_transforms=True
        )
        assert [batch.shape for batch in collector] == [(N_ENVS, 2)]
        collector.shutdown()
    assert not [warning for warning in recwarn if "auto-wire" in str(warning.message)]


def parallel_envs() -> None:
    """Two workers with an MLP, then with a GRU."""
    for network in (MLP, GRU):
        actor = make_actor(network)
        env = ParallelEnv(2, functools.partial(with_state, actor), mp_start_method="fork")
        rollout = env.rollout(3, actor)
        env.close()
        assert rollout.shape == (2, N_ENVS, 3)
        if network is GRU:
            before, after = rollout["agents", "actor_hidden"], rollout["next", "agents", "actor_hidden"]
            assert torch.equal(before[:, :, 1], after[:, :, 0])


def worker_collector() -> None:
    """A collector in another process, with a GRU."""
    actor = make_actor(GRU)
    collector = MultiSyncCollector([functools.partial(with_state, actor)], actor, frames_per_batch=12, total_frames=12)
    (batch,) = collector
    collector.shutdown()
    before, after = batch["agents", "actor_hidden"], batch["next", "agents", "actor_hidden"]
    assert torch.equal(before[..., 1, :, :], after[..., 0, :, :])


@pytest.mark.slow
@pytest.mark.parametrize("function", [parallel_envs, worker_collector])
def test_workers(function: Callable[[], None]) -> None:
    """In a process of its own: TorchRL's workers may wait for each other after a fork of this one."""
    code = f"from tests.contracts import test_drop_in\ntest_drop_in.{function.__name__}()\n"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("network", [MLP, GRU], ids=["mlp", "gru"])
def test_exploration_of_torchrl_behind_a_q_actor(network: Any) -> None:
    actor = make_q_actor(network)
    explore = EGreedyModule(eps_init=1.0, action_key=KEYS.action, spec=make_env(False).full_action_spec_unbatched)
    policy = TensorDictSequential(actor, explore)
    env = with_state(actor, False)
    for kind in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
        with set_exploration_type(kind):
            steps = env.rollout(3, policy)
        assert steps["agents", "action"].shape == (N_ENVS, 3, N_AGENTS)
        greedy = steps[KEYS.action_value].argmax(-1)
        assert torch.equal(steps[KEYS.action], greedy) is (kind is ExplorationType.DETERMINISTIC)


# Actors and critics in TorchRL's losses.


@pytest.mark.parametrize("network", [MLP, GRU], ids=["mlp", "gru"])
@pytest.mark.parametrize("critic", ["value", "attention"])
def test_clip_ppo_loss_and_gae(network: Any, critic: str) -> None:
    actor, group = make_actor(network), team()["agents"]
    kind = ck.value_critic if critic == "value" else ck.modules.AttentionCritic
    network_of_values = kind(team(), group, MLP)
    loss = ClipPPOLoss(actor, network_of_values, normalize_advantage=False)
    group_keys(loss, "reward", "action", "done", "terminated", "advantage", "value_target")
    loss.set_keys(sample_log_prob=KEYS.action_log_prob, value=KEYS.state_value)
    batch = gae(network_of_values, collect(actor))
    losses = loss(batch if network is GRU else batch.reshape(-1))
    assert losses["kl_approx"].abs() < 1e-5  # the first ratio is 1
    learn(loss, losses.select("loss_objective", "loss_critic", "loss_entropy"))


def test_a_gru_refuses_shuffled_steps_and_takes_whole_sequences() -> None:
    actor = make_actor(GRU)
    loss = ClipPPOLoss(actor, ck.value_critic(team(), team()["agents"], MLP), normalize_advantage=False)
    group_keys(loss, "reward", "action", "done", "terminated", "advantage", "value_target")
    loss.set_keys(sample_log_prob=KEYS.action_log_prob, value=KEYS.state_value)
    batch = gae(loss.critic_network, collect(actor))
    flat = batch.reshape(-1)
    for wrong in (flat, flat[torch.randperm(len(flat))], flat.exclude("next")):
        with pytest.raises(ck.UserError, match=r"learns sequences \[\*B, T\], found single steps \[18\].*unsqueeze"):
            loss(wrong)
    for right in (batch, batch[0], batch[:, 2:4], batch[:1, 1:], flat[:1]):
        assert loss(right)["kl_approx"].abs() < 1e-5
    deterministic = make_deterministic(GRU)
    ddpg = DDPGLoss(deterministic, ck.action_value_critic(team(), team()["agents"], MLP))
    ddpg.set_keys(state_action_value=KEYS.state_action_value)
    group_keys(ddpg, "reward", "done", "terminated")
    data = collect(deterministic)
    with pytest.raises(ck.UserError, match="found single steps"):
        ddpg(data.reshape(-1))
    learn(ddpg, ddpg(data))


@pytest.mark.parametrize("make_mixer", [ck.QMixer, ck.VDNMixer])
def test_qmixer_loss(make_mixer: Any) -> None:
    actor, mixer = make_q_actor(), make_mixer(team(False))
    loss = QMixerLoss(actor, mixer)
    loss.set_keys(
        action_value=KEYS.action_value,
        local_value=KEYS.chosen_action_value,
        global_value="chosen_action_value",
        action=KEYS.action,
    )
    loss.make_value_estimator(ValueEstimators.TD0, gamma=0.9)
    assert loss.action_space == "categorical"
    learn(loss, loss(collect(actor, False).reshape(-1)))
    SoftUpdate(loss, eps=0.9).step()


def test_dqn_loss() -> None:
    actor = make_q_actor()
    loss = DQNLoss(actor)
    group_keys(loss, "reward", "action", "done", "terminated", "action_value")
    loss.set_keys(value=KEYS.chosen_action_value)
    learn(loss, loss(collect(actor, False).reshape(-1)))


@pytest.mark.parametrize("attention", [False, True])
def test_ddpg_and_sac(attention: bool) -> None:
    group = team()["agents"]
    make = functools.partial(ck.modules.AttentionCritic, of_actions=True) if attention else ck.action_value_critic
    critic = make(team(), group, MLP)
    ddpg = DDPGLoss(make_deterministic(), critic, delay_actor=True, delay_value=True)
    ddpg.set_keys(state_action_value=KEYS.state_action_value)
    group_keys(ddpg, "reward", "done", "terminated")
    learn(ddpg, ddpg(collect(ddpg.actor_network).reshape(-1)))
    SoftUpdate(ddpg, eps=0.9).step()
    sac = SACLoss(make_actor(), critic)
    sac.set_keys(state_action_value=KEYS.state_action_value, log_prob=KEYS.action_log_prob, action=KEYS.action)
    group_keys(sac, "reward", "done", "terminated")
    learn(sac, sac(collect(sac.actor_network).reshape(-1)))


def test_discrete_sac() -> None:
    actor = make_actor(continuous=False)
    loss = DiscreteSACLoss(actor, make_q_actor(), action_space="categorical", num_actions=9)
    group_keys(loss, "reward", "action", "done", "terminated", "action_value")
    learn(loss, loss(collect(actor, False).reshape(-1)))


# TorchRL's parts in the kit's losses.


@pytest.mark.parametrize("ours", [False, True])
def test_mappo_loss_with_torchrls_actor_critic_and_gae(ours: bool) -> None:
    actor = make_actor() if ours else torchrl_actor()
    critic = torchrl_critic()
    loss = ck.MAPPOLoss(actor, critic, keys=KEYS)
    if ours:
        batch = gae(critic, collect(actor))
    else:
        env = TransformedEnv(make_env(), InitTracker())
        batch = next(iter(ck.RolloutCollector(env, actor, frames_per_batch=18)))
        batch = ck.AdvantageEstimator(critic, KEYS, gamma=0.9, lmbda=0.8)(batch)
    learn(loss, loss(batch.reshape(-1)))


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("updater", [SoftUpdate, HardUpdate])
def test_qmix_loss_with_torchrls_q_network_and_target_updates(ours: bool, updater: Any) -> None:
    group = team(False)["agents"]
    actor = make_q_actor() if ours else ck.modules.as_q_actor(group, torchrl_q(), epsilon=0.5)
    loss = ck.QMixLoss({"agents": actor}, ck.QMixer(team(False)), gamma=0.9)
    update = updater(loss, **({"eps": 0.75} if updater is SoftUpdate else {"value_network_update_interval": 0}))
    env = TransformedEnv(make_env(False), InitTracker())
    batch = ck.TeamReward(team(False), "mean")(next(iter(ck.RolloutCollector(env, actor, frames_per_batch=18))))
    losses = loss(batch.reshape(-1))
    learn(loss, losses.select("loss_qvalue"))
    with torch.no_grad():
        for parameter in loss.online_networks().parameters():
            parameter += 1
    update.step()
    expected = 0.25 if updater is SoftUpdate else 1.0
    online, targets = loss.online_networks().parameters(), loss.target_networks.parameters()
    for ours_now, target in zip(online, targets, strict=True):
        torch.testing.assert_close(ours_now - target, torch.full_like(target, 1 - expected), rtol=0, atol=1e-5)
    assert len(list(loss.children())) == 3  # no module stands twice in the tree


@pytest.mark.parametrize("our_actor", [False, True])
@pytest.mark.parametrize("our_critic", [False, True])
def test_maddpg_loss_with_torchrls_actor_and_critic(our_actor: bool, our_critic: bool) -> None:
    group = team()["agents"]
    actor = make_deterministic() if our_actor else ck.modules.as_deterministic_actor(group, torchrl_deterministic())
    critic = (
        ck.action_value_critic(team(), group, MLP)
        if our_critic
        else ck.modules.as_action_value_critic(group, torchrl_critic(of_actions=True))
    )
    loss = ck.MADDPGLoss({"agents": actor}, {"agents": critic}, gamma=0.9)
    batch = next(iter(ck.RolloutCollector(make_env(), actor, frames_per_batch=18)))
    learn(loss, loss(batch.reshape(-1)).select("loss_actor", "loss_value"))
    SoftUpdate(loss, eps=0.9).step()


def test_a_second_backward_over_a_batch_that_was_collected_with_a_graph() -> None:
    actor = make_q_actor(GRU)
    loss = ck.QMixLoss({"agents": actor}, ck.VDNMixer(team(False)), gamma=0.9)
    env = with_state(actor, False)
    with torch.enable_grad():
        batch = ck.TeamReward(team(False), "mean")(env.rollout(5, actor, break_when_any_done=False))
    assert batch["agents", "actor_hidden"].requires_grad
    for _ in range(2):
        loss(batch)["loss_qvalue"].backward()


# The env under TorchRL's transforms.


TRANSFORMS: dict[str, Callable[[], Any]] = {
    "RewardSum": lambda: RewardSum(in_keys=[KEYS.reward], out_keys=[KEYS.episode_reward], reset_keys=["_reset"]),
    "StepCounter": StepCounter,
    "VecNormV2": lambda: VecNormV2(in_keys=[KEYS.observation]),
    "ObservationNorm": lambda: ObservationNorm(loc=0.0, scale=2.0, in_keys=[KEYS.observation]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_env_under_torchrls_transforms(name: str) -> None:
    env = TransformedEnv(make_env(), TRANSFORMS[name]())
    check_env_specs(env)
    assert env.rollout(6, make_actor(), break_when_any_done=False).shape == (N_ENVS, 6)
    assert ck.TeamSpec.from_env(env)["agents"].n_agents == N_AGENTS


# Calls without a tensordict, and policies of one agent.


def test_keyword_calls() -> None:
    x, value = torch.randn(5, N_AGENTS, 18), torch.zeros(5, N_AGENTS, 1)
    critic = ck.value_critic(team(), team()["agents"], MLP)
    expected = critic(TensorDict({"agents": {"observation": x}}, [5]))["agents", "state_value"]
    assert torch.equal(critic(agents_observation=x), expected)
    assert torch.equal(critic(x), expected)
    of_actions = ck.action_value_critic(team(), team()["agents"], MLP)
    assert of_actions(agents_observation=x, agents_action=torch.zeros(5, N_AGENTS, 2)).shape == (5, N_AGENTS, 1)
    assert ck.QMixer(team())(agents_chosen_action_value=value, agents_observation=x).shape == (5, 1)
    assert make_q_actor()(agents_observation=x)[-1].shape == (5, N_AGENTS)
    assert make_deterministic()(agents_observation=x)[-1].shape == (5, N_AGENTS, 2)
    assert make_actor().for_agent(2)(agents_observation=x[:, 2])[-1].shape == (5,)
    with pytest.raises(ck.UserError, match="AgentNetwork: expected a tensordict or tensors named"):
        critic(observation=x)


def test_the_policy_of_one_agent_has_a_distribution_and_refuses_the_joint_data() -> None:
    joint = TensorDict({"agents": {"observation": torch.randn(5, N_AGENTS, 18)}}, [5])
    alone = TensorDict({"agents": {"observation": joint["agents", "observation"][:, 1]}}, [5])
    for actor, action in (
        (make_actor(), torch.full((5, N_AGENTS, 2), 0.1)),
        (make_actor(continuous=False), torch.ones(5, N_AGENTS).long()),
    ):
        single = actor.for_agent(1)
        expected = actor.get_dist(joint.copy()).log_prob(action)[:, 1]
        torch.testing.assert_close(single.get_dist(alone).log_prob(action[:, 1]), expected)
        assert single.spec["agents", "action"].is_in(single(alone.copy())["agents", "action"][0])
    for actor in (make_actor(), make_q_actor(), make_deterministic()):
        with pytest.raises(ck.UserError, match="one agent's"):
            actor.for_agent(1)(joint.copy())


# What does not fit is refused in one line.


def refusals() -> Iterator[tuple[str, Callable[[], Any]]]:
    group, discrete = team()["agents"], team(False)["agents"]
    inputs, batch = ck.own_observation(group), make_env().reset()
    mappo = ck.MAPPOLoss(make_actor(), ck.value_critic(team(), group, MLP), keys=KEYS)
    yield (
        r"Linear gave \[3, 4, 2\]: expected \[3, n_agents=4, 4\], .* pass scale=LearnedScale",
        lambda: ck.MultiAgentActor(group, inputs, nn.Linear(18, 2))(batch),
    )
    yield (
        r"gave \[3, 4, 12\]: expected \[3, n_agents=4, 9\]",
        lambda: ck.MultiAgentActor(discrete, inputs, nn.Linear(18, 12))(batch),
    )
    yield (
        r"gave \[3, 4, 5\]: expected \[3, n_agents=4, 9\]",
        lambda: ck.MultiAgentQActor(discrete, inputs, nn.Linear(18, 5))(batch),
    )
    yield (
        r"gave \[3, 4, 3\]: expected \[3, n_agents=4, 2\]",
        lambda: ck.MultiAgentDeterministicActor(group, inputs, nn.Linear(18, 3))(batch),
    )
    yield (
        "n_agents=2: its input gives in_features=18, n_agents=4",
        lambda: ck.MultiAgentActor(group, inputs, MLP(18, 4, 2)),
    )
    yield "network is the class MultiAgentMLP", lambda: ck.MultiAgentActor(group, inputs, ck.MultiAgentMLP)
    yield "inputs is a MultiAgentMLP", lambda: ck.MultiAgentActor(group, MLP(18, 4, 4), inputs)
    yield "group is a TeamSpec", lambda: ck.MultiAgentActor(team(), inputs, MLP(18, 4, 4))
    yield "make_network is a MultiAgentMLP", lambda: ck.value_critic(team(), group, MLP(72, 4, 1))
    yield "team is a GroupSpec, group is a TeamSpec", lambda: ck.value_critic(group, team(), MLP)
    yield "make_network, MultiAgentMLP, does not take", lambda: ck.value_critic(team(), group, TorchRLMLP)
    yield (
        r"gave \[3, 1, 2\]: expected \[3, n_agents=1, 4\]",
        lambda: ck.value_critic(team(), group, lambda i, o, n: nn.Linear(i, 2))(batch),
    )
    yield r"MAPPOLoss.set_keys\(reward=...\).*AdvantageEstimator", lambda: mappo.set_keys(reward=KEYS.reward)
    yield "no make_value_estimator.*GAE", lambda: mappo.make_value_estimator(ValueEstimators.GAE, gamma=0.9)
    yield "no value_estimator.*AdvantageEstimator", lambda: mappo.value_estimator
    yield "no critic_network_params: it holds its networks", lambda: mappo.critic_network_params
    yield r"is a TensorDictSequential, .*as_q_actor", lambda: ck.QMixLoss({"agents": torchrl_q()}, None, gamma=0.9)
    yield "actors is a MultiAgentQActor: expected a mapping", lambda: ck.QMixLoss(make_q_actor(), None, gamma=0.9)
    yield "is of group 'agents'; use this name", lambda: ck.QMixLoss({"agent": make_q_actor()}, None, gamma=0.9)
    yield (
        "as_deterministic_actor",
        lambda: ck.MADDPGLoss(
            {"agents": torchrl_deterministic()}, {"agents": ck.action_value_critic(team(), group, MLP)}, gamma=0.9
        ),
    )
    yield (
        "as_action_value_critic",
        lambda: ck.MADDPGLoss({"agents": make_deterministic()}, {"agents": torchrl_critic(True)}, gamma=0.9),
    )
    yield r"for_agent\(0\): .* another library", lambda: ck.modules.as_q_actor(discrete, torchrl_q()).for_agent(0)
    yield "make_tensordict_primer", lambda: ck.modules.as_q_actor(discrete, torchrl_q()).make_tensordict_primer()
    yield "writes .*expected .*action_value", lambda: ck.modules.as_q_actor(discrete, torchrl_actor())
    yield (
        "max_action_value.*use QMixer or VDNMixer there",
        lambda: ck.QPLEXMixer(team(False))(TensorDict({"agents": {"chosen_action_value": torch.zeros(3, 4, 1)}}, [3])),
    )


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    for expected, call in refusals():
        with pytest.raises(ck.UserError, match=expected) as caught:
            call()
        assert "\n" not in str(caught.value)
