"""Sub-policies drawn in a compiled rollout equal those that eager steps draw."""

from __future__ import annotations

import copy

import torch

from ctde_kit.collectors import RolloutCollector
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.modules import (
    GaussianNoise,
    MultiAgentDeterministicActor,
    SubPolicies,
    SubPolicyDraw,
    TeamPolicy,
    own_observation,
)
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import make_network
from tests.envs.scenarios import Drift

N_ENVS, LENGTH, MAX_STEPS, SIZE = 4, 10, 7, 3
INDEX = ("agents", "sub_policy")


def make_collector(compile: bool) -> RolloutCollector:
    base_env = VmasEnv(Drift(), num_envs=N_ENVS, max_steps=MAX_STEPS, seed=1)
    team = TeamSpec.from_env(base_env)
    group = team["agents"]
    torch.manual_seed(3)
    networks = [
        make_network(False)(group.observation_dim, group.action.vector_dim, group.n_agents) for _ in range(SIZE)
    ]
    actor = MultiAgentDeterministicActor(
        group,
        own_observation(group, sub_policies=SIZE),
        SubPolicies(networks),
        GaussianNoise(group, 0.1),
        sub_policies=SubPolicyDraw(group, SIZE),
    )
    policy = TeamPolicy({"agents": actor})
    env = with_transforms(base_env, team, policy)
    return RolloutCollector(env, policy, frames_per_batch=N_ENVS * LENGTH, total_frames=10**6, compile=compile)


def test_compiled_and_eager_rollouts_draw_alike(graphs: None) -> None:
    eager, compiled = make_collector(False), make_collector(True)
    eager.rollout()
    eager.env.base_env.elapsed.copy_(torch.arange(N_ENVS).unsqueeze(-1) * 2 % MAX_STEPS)
    state = copy.deepcopy(eager.state_dict())
    compiled.load_state_dict(copy.deepcopy(state))
    batches = []
    for collector in (eager, compiled):
        torch.manual_seed(5)
        batches.append(collector.rollout())
    assert compiled.compile
    assert compiled._compiled is not None
    ours, theirs = batches[1][INDEX], batches[0][INDEX]
    assert torch.equal(ours, theirs)
    starts = batches[1]["is_init"]
    assert starts[:, 1:].any()
    assert (ours[:, 1:] == ours[:, :-1])[~starts[:, 1:].expand(-1, -1, ours.shape[-1])].all()
    assert (ours[:, 0] != ours[:, -1]).any()
    alive = ~starts.cumsum(1).bool().squeeze(-1)  # initial states are drawn at another time
    torch.testing.assert_close(batches[1]["agents", "action"][alive], batches[0]["agents", "action"][alive])
