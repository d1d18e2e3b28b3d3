"""VMAS's ``dispersion`` with a network that sees each piece of food by itself, and with two scripted policies.

``python -m tests.programs.learning.pieces train --agents 1 --pieces 4 --frames 1200000`` prints greedy returns as it
trains; ``... pieces scripted`` what agents earn that go straight to a piece. docs/studies/dispersion.md has both.
"""

from __future__ import annotations

import argparse

import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.envs import InitTracker, TransformedEnv

import ctde_kit as ck

# What an agent observes: its position and speed, then of each piece its relative position and whether it is eaten.
OWN, PIECE = 4, 3
N_ENVS, EPISODES, STEPS, LR, EPOCHS, BATCHES_BETWEEN = 300, 200, 100, 5e-4, 15, 4


class PiecePicker(nn.Module):
    """The same layers for each piece, whose outputs are added up with the softmax of one more output.

    ``[*B, n_agents, 4 + 3 * n_pieces + rest] -> [*B, n_agents, out_features]``; ``rest`` is an id, if there is one.
    """

    def __init__(self, in_features: int, out_features: int, n_pieces: int, width: int = 64):
        super().__init__()
        self.pieces = slice(OWN, OWN + PIECE * n_pieces)
        own = in_features - PIECE * n_pieces
        self.each = nn.Sequential(
            nn.Linear(own + PIECE, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width + 1)
        )
        self.last = nn.Linear(width, out_features)
        nn.init.orthogonal_(self.last.weight, 0.01)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x[..., self.pieces].unflatten(-1, (-1, PIECE))
        own = torch.cat([x[..., : self.pieces.start], x[..., self.pieces.stop :]], -1).unsqueeze(-2)
        outputs = self.each(torch.cat([own.expand(*pieces.shape[:-1], own.shape[-1]), pieces], -1))
        picked = (outputs[..., :1].softmax(-2) * outputs[..., 1:]).sum(-2)
        return self.last(picked.tanh())


def make(n_agents: int, n_pieces: int, n_envs: int, seed: int) -> ck.VmasEnv:
    """The task with BenchMARL's arguments."""
    arguments = {"n_agents": n_agents, "n_food": n_pieces, "share_reward": True, "food_radius": 0.02}
    return ck.VmasEnv("dispersion", num_envs=n_envs, max_steps=STEPS, scenario_kwargs=arguments, seed=seed)


def greedy_return(policy: nn.Module, env: ck.VmasEnv) -> float:
    """The mean over episodes; every agent has the team's return."""
    return ck.evaluate(env, policy, ["agents"], episodes=EPISODES, seed=1_000_000).metrics()["return_mean"]


def train(n_agents: int, n_pieces: int, frames: int) -> None:
    """MAPPO, as docs/tutorials/compose.md puts it together, with ``PiecePicker`` for the actor."""
    torch.manual_seed(0)
    env, test = make(n_agents, n_pieces, N_ENVS, 0), make(n_agents, n_pieces, EPISODES, 1_000_000)
    team = ck.TeamSpec.from_env(env)
    group = team["agents"]
    inputs = ck.own_observation(group, agent_id=n_agents > 1)
    network = PiecePicker(inputs.features, group.action.vector_dim, n_pieces)
    actor = ck.MultiAgentActor(group, inputs, network, ck.modules.LearnedScale(group.action.vector_dim, n_agents))

    def make_critic(in_features: int, out_features: int, agents: int) -> nn.Module:
        return ck.MultiAgentMLP(in_features, out_features, agents, num_cells=(128, 128))

    critic = ck.value_critic(team, group, make_critic, heads="one")
    norm = ck.ValueNorm()
    advantages = ck.AdvantageEstimator(critic, group.keys, gamma=0.99, lmbda=0.95, value_norm=norm)
    loss = ck.MAPPOLoss(actor, critic, entropy_coeff=0.0, value_norm=norm)
    optimizer = torch.optim.Adam(loss.parameters(), lr=LR)
    update = ck.GradientStep({"agents": loss}, optimizer, max_grad_norm=5.0)
    buffer, epochs = ck.OnPolicyBuffer(minibatch_frames=10 * N_ENVS), ck.training.Epochs(EPOCHS)
    collector = ck.RolloutCollector(
        TransformedEnv(env, InitTracker()), actor, frames_per_batch=STEPS * N_ENVS, total_frames=frames
    )
    for number, batch in enumerate(collector, start=1):
        for group_of_parameters in optimizer.param_groups:
            group_of_parameters["lr"] = LR * (1 - collector.frames / (frames + 1))
        buffer.extend(advantages(batch))
        for _ in epochs(buffer, update):
            pass
        if number % BATCHES_BETWEEN == 0:
            print(f"{collector.frames} frames: greedy return {greedy_return(actor, test):.2f}", flush=True)


def scripted(by_number: bool) -> float:
    """What four agents earn that push straight at the nearest piece, or each at the piece of its own number."""

    def act(observation: Tensor) -> Tensor:
        speed, pieces = observation[..., 2:OWN], observation[..., OWN:].unflatten(-1, (-1, PIECE))
        place, eaten = pieces[..., :2], pieces[..., 2]
        nearest = (place.norm(dim=-1) + 1e3 * eaten).argmin(-1)
        index = torch.arange(4).expand_as(nearest) if by_number else nearest
        target = place.gather(-2, index[..., None, None].expand(*index.shape, 1, 2)).squeeze(-2)
        return (5 * target - 2 * speed).clamp(-1, 1)

    policy = TensorDictModule(act, in_keys=[("agents", "observation")], out_keys=[("agents", "action")])
    return greedy_return(policy, make(4, 4, EPISODES, 1_000_000))


def main() -> None:
    """Train, or play the scripts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "scripted"])
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--pieces", type=int, default=4)
    parser.add_argument("--frames", type=int, default=1_200_000)
    arguments = parser.parse_args()
    if arguments.what == "train":
        train(arguments.agents, arguments.pieces, arguments.frames)
    else:
        print(f"to the nearest piece {scripted(False):.2f}, to the piece of its own number {scripted(True):.2f}")


if __name__ == "__main__":
    main()
